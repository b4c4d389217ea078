"""The one reader of `.safetensors` files: their tensors as float32, with NumPy alone; and the header of such a file.

The file is the length of a JSON header (uint64), the header (name -> dtype, shape, first and last byte), and the data.
The safetensors library is not used, because its NumPy side fails on bfloat16. As in the library, the tensors must cover
the data without gaps and overlaps.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinyllm.errors import FormatError
from tinyllm.json_file import LIMIT_BYTES, parse_json_object

Float32Array = NDArray[np.float32]

_NUMBERS: dict[str, DTypeLike] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""NumPy's type for each supported type; bfloat16, which NumPy lacks, is read by its bits."""
_LENGTH_BYTES = 8
LFS_START = b"version "
"""The file begins so if it was cloned without Git LFS; a header of that length does not exist."""


@dataclass(frozen=True)
class Entry:
    """One tensor of the header, checked against the file's size; offsets count from the start of the data."""

    name: str
    type: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile(Mapping[str, Float32Array]):
    """The tensors of a file by name; each is read, as float32, when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Reads and checks the header. Raises FormatError for a damaged file, or for numbers of another type."""
        with path.open("rb") as file:
            self._data_start, header = _read_header(file, path)
        header.pop("__metadata__", None)
        entries = sorted((_check_entry(name, entry, path) for name, entry in header.items()), key=lambda e: e.begin)
        _check_cover(entries, path.stat().st_size - self._data_start, path)
        self.path = path
        self.entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> Float32Array:
        """The tensor `name`. Raises FormatError if the file became shorter."""
        entry = self.entries[name]
        with self.path.open("rb") as file:
            file.seek(self._data_start + entry.begin)
            numbers = np.fromfile(file, _NUMBERS[entry.type], prod(entry.shape))
        if numbers.nbytes != entry.end - entry.begin:
            raise FormatError(f"{self.path} became shorter while it was read; {name} is incomplete")
        if entry.type == "BF16":
            return widen_bfloat16(numbers).reshape(entry.shape)
        with np.errstate(over="ignore"):  # float64 may overflow to infinity, which the caller's checks refuse
            return numbers.astype(np.float32, copy=False).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def types(self) -> set[str]:
        """The names of the tensors' types: `F64`, `F32`, `F16`, `BF16`."""
        return {entry.type for entry in self.entries.values()}


def make_header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The beginning of a file of float32 tensors of these shapes, whose data follow in the same order.

    >>> make_header({"a": (2,)})
    b'8\\x00\\x00\\x00\\x00\\x00\\x00\\x00{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}    '
    """
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # The library aligns the data too.
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def widen_bfloat16(bits: NDArray[np.uint16]) -> Float32Array:
    """The float32 values of bfloat16 bits: float32(bits << 16)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read_header(file: IO[bytes], path: Path) -> tuple[int, dict[str, Any]]:
    """The offset of the data, and the parsed header."""
    size = path.stat().st_size
    start = file.read(_LENGTH_BYTES)
    if not start:
        raise FormatError(f"{path} is empty; copy or download it again")
    if start == LFS_START:
        raise FormatError(f"{path} is a pointer of Git LFS, without the weights; fetch them: git lfs pull")
    length = int.from_bytes(start, "little")
    most = min(size - _LENGTH_BYTES, LIMIT_BYTES)
    if size < _LENGTH_BYTES or length > most:
        raise FormatError(f"{path}: the header's length is {length}, expected at most {max(most, 0)}")
    return _LENGTH_BYTES + length, parse_json_object(file.read(length), f"the header of {path}")


def _check_entry(name: str, entry: Any, path: Path) -> Entry:
    if not name.isprintable():
        raise FormatError(f"{path}: the header has the name {name[:60]!r}, expected printable characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{path}: {name} has no dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _NUMBERS:
        raise FormatError(f"{path}: {name} has the dtype {dtype!r}, expected {', '.join(_NUMBERS)}")
    if not _are_counts(shape) or len(shape) > 8 or 0 in shape:
        raise FormatError(f"{path}: {name} has the shape {shape!r:.60}, expected whole numbers above 0")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise FormatError(f"{path}: {name} has the data_offsets {offsets!r:.60}, expected two whole numbers")
    begin, end = offsets
    expected = np.dtype(_NUMBERS[dtype]).itemsize * prod(shape)
    if end - begin != expected:
        raise FormatError(f"{path}: {name} has {end - begin} bytes, expected {expected} for {shape} of {dtype}")
    return Entry(name, dtype, tuple(shape), begin, end)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)


def _check_cover(entries: list[Entry], data_bytes: int, path: Path) -> None:
    """Raises FormatError unless `entries` cover the data from start to end without gaps."""
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise FormatError(f"{path}: {entry.name} begins at byte {entry.begin} of the data, expected {position}")
        position = entry.end
    if position != data_bytes:
        raise FormatError(f"{path} is cut off or damaged: its tensors end at byte {position}, its data at {data_bytes}")
