"""Logs of one JSON object a line, which survive a crash in the middle of a line."""

import errno
import json
import os
from pathlib import Path
from typing import Any

from tinyllm.storage import disk
from tinyllm.storage.checks import refused
from tinyllm.storage.commit import write_file


class JsonLines:
    """A log to append to; opening it drops a last line that a crash cut off."""

    def __init__(self, path: Path, keep_through_step: int | None = None) -> None:
        """Opens the log; with `keep_through_step`, first drops lines of later steps."""
        self.path = path
        if path.exists():
            lines = read_json_lines(path)
            kept = [line for line in lines if keep_through_step is None or line.get("step", 0) <= keep_through_step]
            write_file(path, "".join(_as_line(line) for line in kept))
        # Unbuffered: a line that the disk refuses raises at once, and closing has nothing left to write.
        self._file = path.open("ab", buffering=0)

    def append(self, record: dict[str, Any]) -> None:
        """Adds one line, visible to other processes at once. Raises ArtifactError if the disk refuses."""
        line = _as_line(record).encode()
        try:
            num_written = self._file.write(line)
            if num_written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise refused(self.path, self.path.stat().st_size, error, len(line)) from error
        disk.after_operation("append", self.path)

    def sync(self) -> None:
        """Makes all written lines durable."""
        os.fsync(self._file.fileno())
        disk.after_operation("sync", self.path)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _as_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log; damaged lines, and a last line that a crash cut off, are left out."""
    records = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                records.append(record)
    return records
