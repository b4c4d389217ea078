"""Reads the container of a GGUF file, versions 2 and 3, little-endian: metadata, a table of tensors, their data.

`gguf_writer` writes it. This module knows nothing of models: keys and names are strings. The reader checks each number
against the rest of the file before using it. As in llama.cpp, tensors must follow each other in the table's order, so
none can overlap. docs/formats.md has the layout with offsets.
"""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tinyllm.errors import FormatError
from tinyllm.exchange.gguf_blocks import Float32Array, TensorType, decode, fits, size_bytes

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"
HEADER_LIMIT_BYTES = 64 * 2**20
"""Limit for metadata and table together; a model with 128,000 tokens needs 8 MB."""
ARRAY_LIMIT = 2**20
"""Limit of elements in a metadata array; the longest in real files are some 500,000 merges."""
NAME_LIMIT_BYTES = 63
MAX_DIMENSIONS = 4

Value = int | float | bool | str | list[str] | NDArray[np.generic]


class ValueType(IntEnum):
    """The types of metadata values, with GGUF's numbers."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


DTYPES = {
    ValueType.UINT8: "<u1",
    ValueType.INT8: "<i1",
    ValueType.UINT16: "<u2",
    ValueType.INT16: "<i2",
    ValueType.UINT32: "<u4",
    ValueType.INT32: "<i4",
    ValueType.FLOAT32: "<f4",
    ValueType.BOOL: "?",
    ValueType.UINT64: "<u8",
    ValueType.INT64: "<i8",
    ValueType.FLOAT64: "<f8",
}
"""NumPy's names of the numeric types."""
_FROM_Q4_1 = (
    "Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S"
)
_UNREAD_TYPES = dict(enumerate(_FROM_Q4_1.split(), start=3)) | {22: "IQ2_S", 23: "IQ4_XS", 28: "F64", 39: "MXFP4"}
"""Names of the types that are not in TensorType, for messages."""


@dataclass(frozen=True)
class TensorEntry:
    """One entry of the tensor table, checked against the file's size."""

    name: str
    shape: tuple[int, ...]
    """NumPy's order, with the row's width last; the file lists it first."""
    type: TensorType
    position: int
    """Offset of the first byte from the start of the file."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the data, without the padding after it."""
        return size_bytes(self.type, prod(self.shape))


@dataclass(frozen=True)
class Contents:
    """Everything in the file before its data."""

    version: int
    metadata: dict[str, Value]
    tensors: dict[str, TensorEntry]


def read_contents(file: IO[bytes], path: Path) -> Contents:
    """Metadata and table of the open `file`; `path` is for messages. Raises FormatError for the first invalid field."""
    cursor = _Cursor(file, path)
    version, num_tensors, num_values = _read_preamble(cursor)
    metadata: dict[str, Value] = {}
    for index in range(num_values):
        key = cursor.name(f"key {index} of the metadata")
        if key in metadata:
            raise FormatError(f"{path}: the metadata has the key {key!r} twice")
        metadata[key] = _read_value(cursor, key)
    alignment = _alignment(metadata, path)
    lines = [_read_tensor_line(cursor, index) for index in range(num_tensors)]
    data_start = pad(cursor.position, alignment)
    return Contents(version, metadata, _place_tensors(lines, data_start, alignment, cursor))


def read_tensor(file: IO[bytes], entry: TensorEntry, path: Path) -> Float32Array:
    """The values of `entry` as float32, in its shape."""
    file.seek(entry.position)
    content = file.read(entry.size_bytes)
    if len(content) != entry.size_bytes:
        raise FormatError(f"{path} became shorter while it was read; {entry.name} is incomplete")
    return decode(content, entry.type).reshape(entry.shape)


class _Cursor:
    """A read position that never passes the end of the file or the limit for a header."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.path = path
        self.position = 0
        self.file_bytes = file.seek(0, os.SEEK_END)
        self._file = file
        self._limit = min(self.file_bytes, HEADER_LIMIT_BYTES)
        file.seek(0)

    @property
    def remaining(self) -> int:
        return self._limit - self.position

    def take(self, num_bytes: int, field: str) -> bytes:
        if num_bytes > self.remaining:
            end = "the file ends" if self._limit == self.file_bytes else f"the limit of {HEADER_LIMIT_BYTES} is"
            raise FormatError(
                f"{self.path}: {field} takes {num_bytes} bytes from byte {self.position} on; "
                f"{end} {self.remaining} bytes later"
            )
        self.position += num_bytes
        return self._file.read(num_bytes)

    def number(self, format: str, field: str) -> int:
        (number,) = struct.unpack(f"<{format}", self.take(struct.calcsize(f"<{format}"), field))
        return int(number)

    def count(self, least_bytes: int, limit: int, field: str) -> int:
        """A 64-bit count of items of at least `least_bytes` each, at most as many as the rest of the file can hold."""
        count = self.number("Q", field)
        most = min(limit, self.remaining // least_bytes)
        if count > most:
            raise FormatError(f"{self.path}: {field} is {count}, expected at most {most}")
        return count

    def name(self, field: str) -> str:
        """A printable string without newlines, safe for messages."""
        name = self.string(field)
        if not name.isprintable():
            raise FormatError(f"{self.path}: {field} is {name[:60]!r}, expected printable characters")
        return name

    def string(self, field: str) -> str:
        content = self.take(self.number("Q", field), field)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path}: {field} is not UTF-8 at its byte {error.start}") from None


def _read_preamble(cursor: _Cursor) -> tuple[int, int, int]:
    """The version, the number of tensors, and the number of metadata values."""
    magic = cursor.take(4, "the magic")
    if magic != MAGIC:
        raise FormatError(f"{cursor.path} is not a GGUF file: it starts with {magic!r}, expected {MAGIC!r}")
    version = cursor.number("I", "the version")
    if version and not version & 0xFFFF:
        raise FormatError(f"{cursor.path} is a big-endian GGUF file; tinyllm reads little-endian ones")
    if version not in (2, VERSION):
        raise FormatError(f"{cursor.path}: the GGUF version is {version}, expected 2 or 3")
    # Minimum of a tensor: length of the name, number of dimensions, one dimension, type, offset. A value has at least a
    # key, a type and a value.
    num_tensors = cursor.count(32, 2**16, "the number of tensors")
    return version, num_tensors, cursor.count(13, 2**16, "the number of metadata values")


def _read_value(cursor: _Cursor, key: str) -> Value:
    type = _value_type(cursor, key)
    if type == ValueType.STRING:
        return cursor.string(key)
    if type == ValueType.ARRAY:
        return _read_array(cursor, key)
    value: int | float | bool = _read_numbers(cursor, key, type, 1)[0].item()
    return value


def _read_array(cursor: _Cursor, key: str) -> Value:
    type = _value_type(cursor, key)
    if type == ValueType.ARRAY:
        raise FormatError(f"{cursor.path}: {key} is an array of arrays, which tinyllm does not read")
    if type == ValueType.STRING:
        length = cursor.count(8, ARRAY_LIMIT, f"the length of {key}")
        return [cursor.string(f"element {index} of {key}") for index in range(length)]
    length = cursor.count(np.dtype(DTYPES[type]).itemsize, ARRAY_LIMIT, f"the length of {key}")
    return _read_numbers(cursor, key, type, length)


def _read_numbers(cursor: _Cursor, key: str, type: ValueType, length: int) -> NDArray[np.generic]:
    dtype = np.dtype(DTYPES[type])
    content = cursor.take(length * dtype.itemsize, key)
    # Any byte except 0 is true; NumPy would keep the byte, which makes bools that are neither true nor false.
    return np.frombuffer(content, np.uint8) != 0 if type == ValueType.BOOL else np.frombuffer(content, dtype)


def _value_type(cursor: _Cursor, key: str) -> ValueType:
    number = cursor.number("I", f"the type of {key}")
    try:
        return ValueType(number)
    except ValueError:
        raise FormatError(f"{cursor.path}: the type of {key} is {number}, expected 0 to 12") from None


def _alignment(metadata: Mapping[str, Value], path: Path) -> int:
    alignment = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
    if type(alignment) is not int or not 8 <= alignment <= 2**16 or alignment & (alignment - 1):
        raise FormatError(f"{path}: {ALIGNMENT_KEY} is {alignment!r}, expected a power of 2 from 8 to 65536")
    return alignment


def _read_tensor_line(cursor: _Cursor, index: int) -> tuple[TensorEntry, int]:
    """An entry without its position, and its offset in the table."""
    name = cursor.name(f"the name of tensor {index}")
    if len(name.encode()) > NAME_LIMIT_BYTES:
        raise FormatError(
            f"{cursor.path}: the name of tensor {index} has {len(name.encode())} bytes, "
            f"expected at most {NAME_LIMIT_BYTES}"
        )
    num_dimensions = cursor.number("I", f"the number of dimensions of {name}")
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise FormatError(f"{cursor.path}: {name} has {num_dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}")
    sizes = [cursor.number("Q", f"the shape of {name}") for _ in range(num_dimensions)]
    type = _tensor_type(cursor, name)
    if not all(sizes) or not fits(type, sizes[0]):
        raise FormatError(
            f"{cursor.path}: {name} of type {type.name} has the shape {sizes[::-1]}, which is not possible"
        )
    return TensorEntry(name, tuple(sizes[::-1]), type, 0), cursor.number("Q", f"the offset of {name}")


def _tensor_type(cursor: _Cursor, name: str) -> TensorType:
    number = cursor.number("I", f"the type of {name}")
    try:
        return TensorType(number)
    except ValueError:
        found = _UNREAD_TYPES.get(number, f"number {number}")
        raise FormatError(
            f"{cursor.path}: {name} is of type {found}, expected {', '.join(type.name for type in TensorType)}; "
            "llama.cpp's `llama-quantize --allow-requantize IN OUT F16` converts the file"
        ) from None


def _place_tensors(
    lines: list[tuple[TensorEntry, int]], data_start: int, alignment: int, cursor: _Cursor
) -> dict[str, TensorEntry]:
    """The table by name, with each entry's position in the file."""
    tensors: dict[str, TensorEntry] = {}
    expected = 0
    for entry, offset in lines:
        if entry.name in tensors:
            raise FormatError(f"{cursor.path}: the table has the tensor {entry.name!r} twice")
        if offset != expected:
            raise FormatError(f"{cursor.path}: the offset of {entry.name} is {offset}, expected {expected}")
        end = data_start + offset + entry.size_bytes
        if end > cursor.file_bytes:
            raise FormatError(
                f"{cursor.path} is cut off or damaged: {entry.name} ends at byte {end}, the file at {cursor.file_bytes}"
            )
        tensors[entry.name] = TensorEntry(entry.name, entry.shape, entry.type, data_start + offset)
        expected = pad(offset + entry.size_bytes, alignment)
    return tensors


def pad(position: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -(-position // alignment) * alignment
