"""Gives damaged copies of a file to a reader: each is refused with FormatError, or read as a whole model.

The reader runs in a child process with limits of 2 GiB and 5 s a file. A crash, a hang or another exception fails the
test with the copy's number. The damage of a copy is a function of the seed and that number.

The child is this module as a program: python fuzz.py READER ORIGINAL DAMAGED MUTATOR FIRST COUNT REFUSAL
"""

import io
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

MEMORY_BYTES = 2 * 2**30
SECONDS = 5
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
MAGICS = (
    b"PK\x03\x04",
    b"GGUF",
    struct.pack("<I", 0x616B3432),
    b"\x80\x02",
    b"\0\0\0\0",
    b"\x89PNG",
    b'{"a"',
    b"\n\n\n\n",
)


@dataclass(frozen=True)
class Outcome:
    """Number of copies by result."""

    refused: int
    read: int
    """Copies whose damage no reader can see: a bit of a weight, or a byte that means nothing."""


def run_mutants(
    reader: str,
    original: Path,
    count: int,
    *,
    damaged: str = "",
    mutator: str = "mutate",
    first: int = 0,
    refusal: str = "FormatError",
) -> Outcome:
    """Gives `count` damaged copies of `original` to `reader` ("module:function" of a Path).

    For a directory `damaged` names the file in it. `refusal` is the error a reader may raise, which names the file,
    except for a ConfigError: it names the setting. Raises AssertionError for the first copy that does not end well.
    """
    command = [sys.executable, __file__, reader, str(original), damaged, mutator, str(first), str(count), refusal]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # The child ends itself on a hang, so its own time limit is enough.
    child = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    words = child.stdout.split()
    ended = {-signal.SIGALRM: f"took more than {SECONDS} s", -signal.SIGSEGV: "crashed", -signal.SIGKILL: "was killed"}
    if child.returncode:
        reason = ended.get(child.returncode, f"ended with {child.returncode}")
        raise AssertionError(f"{reader} {reason} at copy {first + len(words)}:\n{child.stderr[-3000:]}")
    assert len(words) == count
    return Outcome(words.count("refused"), words.count("read"))


def mutate(content: bytes, number: random.Random) -> bytes:
    """One damaged copy of `content`."""
    kinds = (_flip_bits, _cut, _extend, _put_extreme, _put_extreme, _overlap, _change_magic, _clear)
    damaged = number.choice(kinds)(bytearray(content), number)
    return damaged if damaged != content else content + b"\0"


def mutate_pickle(content: bytes, number: random.Random) -> bytes:
    """A copy of a `.pt` archive whose pickle is damaged while every checksum is right."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for record in source.infolist():
            data = source.read(record)
            archive.writestr(record.filename, mutate(data, number) if record.filename.endswith("data.pkl") else data)
    return target.getvalue()


def _place(content: bytearray, number: random.Random) -> int:
    """Half of the damage is in the first bytes, which hold headers."""
    end = min(len(content), 512) if number.random() < 0.5 else len(content)
    return number.randrange(max(1, end))


def _flip_bits(content: bytearray, number: random.Random) -> bytes:
    for _ in range(number.randint(1, 8)):
        content[_place(content, number)] ^= 1 << number.randrange(8)
    return bytes(content)


def _cut(content: bytearray, number: random.Random) -> bytes:
    return bytes(content[: _place(content, number)])


def _extend(content: bytearray, number: random.Random) -> bytes:
    return bytes(content) + number.randbytes(number.randint(1, 100))


def _put_extreme(content: bytearray, number: random.Random) -> bytes:
    """A number at a limit of its type: a huge count, a negative size, an offset past the end."""
    width = number.choice((1, 2, 4, 8))
    start = _place(content, number)
    start -= start % number.choice((1, width))
    value = number.choice((*EXTREMES, number.getrandbits(64))) % 2 ** (8 * width)
    content[start : start + width] = value.to_bytes(width, "little")
    return bytes(content)


def _overlap(content: bytearray, number: random.Random) -> bytes:
    """A part of the file is copied to another place: overlapping offsets, repeated names."""
    size = number.randint(1, 64)
    source, target = _place(content, number), _place(content, number)
    content[target : target + size] = content[source : source + size]
    return bytes(content)


def _change_magic(content: bytearray, number: random.Random) -> bytes:
    content[:4] = number.choice((*MAGICS, number.randbytes(4)))
    return bytes(content)


def _clear(content: bytearray, number: random.Random) -> bytes:
    start, size = _place(content, number), number.randint(1, 256)
    content[start : start + size] = number.choice((b"\0", b"\xff")) * len(content[start : start + size])
    return bytes(content)


def _child(reader: str, original: Path, damaged: str, mutator: str, first: int, count: int, refusal: str) -> None:
    module, _, name = reader.partition(":")
    read: Callable[[Path], Any] = getattr(import_module(module), name)
    errors = import_module("tinyllm.errors")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / original.name
        if original.is_dir():
            shutil.copytree(original, copy)
        else:
            shutil.copyfile(original, copy)
        target = copy / damaged if damaged else copy
        content = target.read_bytes()
        # Everything is imported before the limits apply.
        read(copy)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for index in range(first, first + count):
            target.unlink()
            target.write_bytes(globals()[mutator](content, random.Random(f"{original.name} {index}")))
            signal.alarm(SECONDS)
            try:
                read(copy)
            except getattr(errors, refusal) as error:
                message = str(error)
                assert str(copy) in message or refusal == "ConfigError", f"no file is named: {message}"
                assert "\n" not in message, f"more than one line: {message}"
                print("refused", flush=True)
            else:
                print("read", flush=True)
            signal.alarm(0)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    numbers = int(arguments[4]), int(arguments[5])
    _child(arguments[0], Path(arguments[1]), arguments[2], arguments[3], *numbers, arguments[6])
