"""Reads a log of JSON lines in the order of steps, which may be large, growing, rewritten or torn. Takes no lock.

A line without a whole number as `step` is foreign and left out, as is a last line without its end. A file of any size
costs bounded memory: blocks are read one after the other, places are found by binary search.
"""

import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from tinyllm.machine.system import OPEN_UNKNOWN_FILE

BLOCK_BYTES = 2**20
LONGEST_LINE_BYTES = 2**18
"""A longer line is foreign."""
PROBE_BYTES = 1024
"""Bytes that one step of the binary search reads; lines of metrics have 150 to 250."""
CHECKED_BYTES = 64
"""Bytes before a place of the file by which a rewritten file is recognized."""
STEP_LIMIT = 2**53
"""Whole numbers below this are exact in a browser."""

Record = dict[str, Any]


class Place(NamedTuple):
    """A position in the file between two lines, with a checksum of the bytes before it."""

    offset: int
    checksum: int


class StepLog:
    """An open log; `end` is the position after its last whole line when it was opened."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self.end = self._last_line_end()

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self | None]:
        """The log at `path`, closed afterwards; None if there is no such regular file, or if it is a link."""
        try:
            descriptor = os.open(path, os.O_RDONLY | OPEN_UNKNOWN_FILE)
        except OSError:
            yield None
            return
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            yield None
            return
        log = cls(descriptor)
        try:
            yield log
        finally:
            log._file.close()

    def lines(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Record]]:
        """Position and record of each line that begins in [start, stop); `start` is the beginning of a line."""
        stop = self.end if stop is None else min(stop, self.end)
        held, skips = b"", False
        position = offset = start
        while offset < stop:
            block = self.read(position, min(BLOCK_BYTES, self.end - position))
            if not block:
                return  # the file became shorter
            position += len(block)
            *parts, rest = (held + block).split(b"\n")
            for part in parts:
                if offset >= stop:
                    return
                record = None if skips else parse(part)
                if record is not None:
                    yield offset, record
                offset += len(part) + 1
                skips = False
            held = rest
            if len(held) > LONGEST_LINE_BYTES:
                offset, held, skips = position, b"", True

    def window(self, start: int, num_bytes: int, mark: bytes = b"") -> list[tuple[int, Record]]:
        """The records of the whole lines in `num_bytes` from `start`, which may be inside a line.

        Only lines that contain `mark` are parsed.
        """
        return list(self._each_in(start, num_bytes, mark))

    def _each_in(self, start: int, num_bytes: int, mark: bytes = b"") -> Iterator[tuple[int, Record]]:
        content = self.read(start, min(num_bytes, self.end - start))
        first = self._line_start(start, content)
        offset = start + first
        for part in content[first:].split(b"\n")[:-1]:
            record = parse(part) if mark in part else None
            if record is not None:
                yield offset, record
            offset += len(part) + 1

    def find(self, step: int, low: int = 0, high: int | None = None) -> int:
        """The position of the first line of `step` or a later one, `end` if there is none; by binary search.

        Lines before `low`, the beginning of a line, are of earlier steps; those from `high` on are not.
        """
        high = self.end if high is None else high
        while high - low > 2 * PROBE_BYTES:
            middle = (low + high) // 2
            offset, found = self._probe(middle, high)
            if found is None or found >= step:
                high = middle
            else:
                low = offset
        for offset, record in self._each_in(low, high - low + 2 * PROBE_BYTES):
            if record["step"] >= step:
                return offset
        for offset, record in self.lines(low, high + 4 * BLOCK_BYTES):  # past long foreign lines
            if record["step"] >= step:
                return offset
        return self.end

    def place(self, offset: int) -> Place:
        """The place at `offset`."""
        first = max(0, offset - CHECKED_BYTES)
        return Place(offset, zlib.crc32(self.read(first, offset - first)))

    def has(self, place: Place) -> bool:
        """Whether the file still has the bytes before `place`; False after it was rewritten."""
        return place.offset <= self.end and self.place(place.offset) == place

    def read(self, start: int, num_bytes: int) -> bytes:
        """Up to `num_bytes` from `start`; fewer at the end of the file."""
        self._file.seek(start)
        return self._file.read(max(num_bytes, 0)) or b""

    def _probe(self, start: int, stop: int) -> tuple[int, int | None]:
        """The position after the first whole line from `start` on, and its step; None if none begins before `stop`."""
        num_bytes = PROBE_BYTES
        while True:
            content = self.read(start, min(num_bytes, self.end - start))
            offset = self._line_start(start, content)
            for part in content[offset:].split(b"\n")[:-1]:
                if start + offset >= stop:
                    return stop, None
                offset += len(part) + 1
                record = parse(part)
                if record is not None:
                    return start + offset, record["step"]
            if start + num_bytes >= min(stop, self.end) or num_bytes >= LONGEST_LINE_BYTES:
                return stop, None
            num_bytes *= 8

    def _line_start(self, start: int, content: bytes) -> int:
        """The index of the first beginning of a line in `content`, which is read at `start`."""
        if start == 0 or self.read(start - 1, 1) == b"\n":
            return 0
        return content.find(b"\n") + 1 or len(content)

    def _last_line_end(self) -> int:
        """The position after the last line; 0 if the last `BLOCK_BYTES` have no end of a line, as no log has."""
        size = os.fstat(self._file.fileno()).st_size
        first = max(0, size - BLOCK_BYTES)
        found = self.read(first, size - first).rfind(b"\n")
        return first + found + 1 if found >= 0 else 0


def parse(line: bytes) -> Record | None:
    """The object of a line with its step; None for a foreign or damaged line."""
    if len(line) > LONGEST_LINE_BYTES:
        return None
    try:
        record = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    step = record.get("step")
    return record if type(step) is int and 0 <= step < STEP_LIMIT else None
