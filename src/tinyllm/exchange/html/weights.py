"""The weights inside a page, in the layout of safetensors: matrices as int8 or bfloat16, norms and biases as float32.

An int8 matrix `NAME` has a tensor `NAME.scales` with one float32 for each row: value = scale * int8. The tensors stand
in the order of the size of their numbers, so that each begins at a multiple of that size.
"""

import json
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError
from tinyllm.exchange.foreign import ForeignModel, Tensors
from tinyllm.exchange.gguf_blocks import narrow_to_bfloat16
from tinyllm.exchange.llama2c import quantize
from tinyllm.model.size import parameter_shapes
from tinyllm.safetensors_file import widen_bfloat16

NumberKind = Literal["int8", "bf16"]

SCALES = ".scales"
_TYPES = {"int8": "I8", "bf16": "BF16"}
_SIZES = {"F32": 4, "BF16": 2, "I8": 1}
_ALIGNMENT = 8


class Entry(NamedTuple):
    """One tensor of the layout."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of its numbers."""
        return _SIZES[self.dtype] * prod(self.shape)


def packed_bytes(config: ModelConfig, kind: NumberKind) -> int:
    """The length of what `pack` returns, by arithmetic on the shapes."""
    entries = _entries(config, kind)
    return len(_header(entries)) + sum(entry.num_bytes for entry in entries)


def pack(model: ForeignModel, kind: NumberKind) -> bytes:
    """The weights of `model` with matrices of `kind`."""
    entries = _entries(model.config, kind)
    numbers: dict[str, NDArray[Any]] = {}
    for name, tensor in model.tensors.items():
        if tensor.ndim != 2:
            numbers[name] = tensor.astype("<f4", copy=False)
        elif kind == "bf16":
            numbers[name] = narrow_to_bfloat16(tensor).astype("<u2")
        else:
            numbers[name], numbers[name + SCALES] = quantize(tensor, tensor.shape[1])
    return _header(entries) + b"".join(numbers[entry.name].tobytes() for entry in entries)


def unpack(content: bytes, config: ModelConfig, kind: NumberKind, path: Path) -> Tensors:
    """The float32 tensors in `content`, which are exact. Raises FormatError unless it is what `pack` writes."""
    if config.num_layers * config.hidden_size > len(content):
        # This precedes any list of layers, because a file may claim any number of them.
        raise FormatError(
            f"{path}: num_layers is {config.num_layers}, more than its weights of {len(content)} bytes hold"
        )
    entries = _entries(config, kind)
    header = _header(entries)
    if len(content) != packed_bytes(config, kind) or not content.startswith(header):
        raise FormatError(f"{path}: its weights are not those of its config; the file is damaged")
    position, numbers = len(header), dict[str, NDArray[Any]]()
    for entry in entries:
        part = content[position : position + entry.num_bytes]
        dtype = {"F32": "<f4", "BF16": "<u2", "I8": "<i1"}[entry.dtype]
        numbers[entry.name] = np.frombuffer(part, dtype).reshape(entry.shape)
        position += entry.num_bytes
    return {name: _to_float(name, numbers) for name in parameter_shapes(config)}


def _to_float(name: str, numbers: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    found = numbers[name]
    if found.dtype == np.int8:
        scaled: NDArray[np.float32] = found * numbers[name + SCALES][:, None]
        return scaled
    return widen_bfloat16(found) if found.dtype == np.uint16 else found.astype(np.float32)


def _entries(config: ModelConfig, kind: NumberKind) -> list[Entry]:
    """All tensors in the order of the file: numbers of four bytes first."""
    entries = []
    for name, shape in parameter_shapes(config).items():
        entries.append(Entry(name, _TYPES[kind] if len(shape) == 2 else "F32", shape))
        if len(shape) == 2 and kind == "int8":
            entries.append(Entry(name + SCALES, "F32", shape[:1]))
    return sorted(entries, key=lambda entry: -_SIZES[entry.dtype])


def _header(entries: list[Entry]) -> bytes:
    """The length of the JSON and the JSON, filled up with spaces to a multiple of 8 bytes."""
    header, position = {}, 0
    for entry in entries:
        end = position + entry.num_bytes
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
