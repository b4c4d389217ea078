"""Reads the tensors of a `.safetensors` file as float32, with NumPy alone.

The file is the length of a JSON header (uint64), the header (name -> dtype, shape, first and last byte), and the data.
The safetensors library is not used, because its NumPy side fails on bfloat16. As in the library, the tensors must cover
the data without gaps and overlaps.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinyllm.errors import FormatError
from tinyllm.exchange.foreign import Tensors
from tinyllm.exchange.gguf_blocks import TensorType, decode
from tinyllm.exchange.json_file import LIMIT_BYTES, parse_json_object

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes per number of each supported type."""
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class _Entry:
    """One tensor of the header, checked against the file's size; offsets count from the start of the data."""

    name: str
    type: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(path: Path) -> tuple[Tensors, set[str]]:
    """The tensors of the file by name, and the names of their types (`F64`, `F32`, `F16`, `BF16`).

    Raises FormatError if the file is damaged or has numbers of another type.
    """
    with path.open("rb") as file:
        data_start, header = _read_header(file, path)
        header.pop("__metadata__", None)
        entries = sorted((_check_entry(name, entry, path) for name, entry in header.items()), key=lambda e: e.begin)
        _check_cover(entries, path.stat().st_size - data_start, path)
        file.seek(data_start)
        tensors = {entry.name: _read_tensor(file, entry, path) for entry in entries}
    return tensors, {entry.type for entry in entries}


def _read_header(file: IO[bytes], path: Path) -> tuple[int, dict[str, Any]]:
    """The offset of the data, and the parsed header."""
    size = path.stat().st_size
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    most = min(size - _LENGTH_BYTES, LIMIT_BYTES)
    if size < _LENGTH_BYTES or length > most:
        raise FormatError(f"{path}: the header's length is {length}, expected at most {max(most, 0)}")
    return _LENGTH_BYTES + length, parse_json_object(file.read(length), f"the header of {path}")


def _check_entry(name: str, entry: Any, path: Path) -> _Entry:
    if not name.isprintable():
        raise FormatError(f"{path}: the header has the name {name[:60]!r}, expected printable characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{path}: {name} has no dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise FormatError(f"{path}: {name} has the dtype {dtype!r}, expected {', '.join(_BYTES)}")
    if not _are_counts(shape) or len(shape) > 8 or 0 in shape:
        raise FormatError(f"{path}: {name} has the shape {shape!r:.60}, expected whole numbers above 0")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise FormatError(f"{path}: {name} has the data_offsets {offsets!r:.60}, expected two whole numbers")
    begin, end = offsets
    expected = _BYTES[dtype] * prod(shape)
    if end - begin != expected:
        raise FormatError(f"{path}: {name} has {end - begin} bytes, expected {expected} for {shape} of {dtype}")
    return _Entry(name, dtype, tuple(shape), begin, end)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)


def _check_cover(entries: list[_Entry], data_bytes: int, path: Path) -> None:
    """Raises FormatError unless `entries` cover the data from start to end without gaps."""
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise FormatError(f"{path}: {entry.name} begins at byte {entry.begin} of the data, expected {position}")
        position = entry.end
    if position != data_bytes:
        raise FormatError(f"{path} is cut off or damaged: its tensors end at byte {position}, its data at {data_bytes}")


def _read_tensor(file: IO[bytes], entry: _Entry, path: Path) -> Any:
    content = file.read(entry.end - entry.begin)
    if len(content) != entry.end - entry.begin:
        raise FormatError(f"{path} became shorter while it was read; {entry.name} is incomplete")
    if entry.type == "F64":
        with np.errstate(over="ignore"):  # overflow becomes infinity, which `check_tensors` refuses
            return np.frombuffer(content, "<f8").astype(np.float32).reshape(entry.shape)
    return decode(content, TensorType[entry.type]).reshape(entry.shape)
