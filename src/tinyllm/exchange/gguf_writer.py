"""Writes the container of a GGUF file, version 3; `gguf_file` reads it, and docs/formats.md has the layout."""

import struct
from collections.abc import Iterable, Mapping
from typing import IO

import numpy as np

from tinyllm.errors import InputError
from tinyllm.exchange.gguf_blocks import Float32Array, TensorType, encode, size_bytes
from tinyllm.exchange.gguf_file import ALIGNMENT, DTYPES, MAGIC, VERSION, ValueType, pad


def write_contents(
    file: IO[bytes],
    metadata: Mapping[str, tuple[ValueType, object]],
    tensors: Iterable[tuple[str, Float32Array, TensorType]],
) -> None:
    """Writes a complete file; `metadata` maps key -> (type, value), and a list or array has elements of that type.

    Raises InputError naming a tensor with a value too large for its type.
    """
    tensors = list(tensors)
    file.write(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)))
    position = 4 + struct.calcsize("<IQQ")
    for key, (type, value) in metadata.items():
        position += file.write(_string(key) + _value(type, value))
    offset = 0
    for name, values, tensor_type in tensors:
        shape = values.shape[::-1]
        line = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor_type, offset)
        position += file.write(_string(name) + line)
        offset += pad(size_bytes(tensor_type, values.size), ALIGNMENT)
    file.write(bytes(pad(position, ALIGNMENT) - position))
    for name, values, tensor_type in tensors:
        try:
            content = encode(values, tensor_type)
        except OverflowError as error:
            raise InputError(f"{name} cannot be written as {tensor_type.name}: {error}; choose F32 or BF16") from None
        file.write(content + bytes(pad(len(content), ALIGNMENT) - len(content)))


def _string(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _value(type: ValueType, value: object) -> bytes:
    """A metadata value, preceded by its type."""
    if isinstance(value, list | np.ndarray):
        return struct.pack("<IIQ", ValueType.ARRAY, type, len(value)) + b"".join(
            _without_type(type, each) for each in value
        )
    return struct.pack("<I", type) + _without_type(type, value)


def _without_type(type: ValueType, value: object) -> bytes:
    if type == ValueType.STRING:
        return _string(str(value))
    return np.asarray(value, DTYPES[type]).tobytes()
