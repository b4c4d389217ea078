"""Encodes and decodes tensor data of GGUF: float32, float16, bfloat16, and blocks of 8 or 4 bits.

A block is 32 consecutive values of a row. Q8_0: a float16 scale and 32 int8, value = scale * int8. Q4_0 (read only):
a float16 scale and 16 bytes; byte i holds values i (low nibble) and i + 16 (high), value = scale * (nibble - 8).
All data is little-endian. This module knows neither files nor names.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyllm.safetensors_file import widen_bfloat16

BLOCK_VALUES = 32
"""Number of values that share a scale in Q8_0 and Q4_0."""

Float32Array = NDArray[np.float32]


class TensorType(IntEnum):
    """The tensor types that tinyllm reads, with GGUF's numbers."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q8_0 = 8
    BF16 = 30


class _Layout(NamedTuple):
    """The storage of a type: `num_bytes` for every `num_values` values of a row."""

    num_values: int
    num_bytes: int


_LAYOUTS = {
    TensorType.F32: _Layout(1, 4),
    TensorType.F16: _Layout(1, 2),
    TensorType.BF16: _Layout(1, 2),
    TensorType.Q8_0: _Layout(BLOCK_VALUES, 2 + BLOCK_VALUES),
    TensorType.Q4_0: _Layout(BLOCK_VALUES, 2 + BLOCK_VALUES // 2),
}
_Q8_0 = np.dtype([("scale", "<f2"), ("values", "i1", BLOCK_VALUES)])
_Q4_0 = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK_VALUES // 2)])


def fits(type: TensorType, row_width: int) -> bool:
    """Whether rows of `row_width` values are a whole number of blocks of `type`."""
    return row_width % _LAYOUTS[type].num_values == 0


def size_bytes(type: TensorType, num_values: int) -> int:
    """The bytes of `num_values` values, a multiple of the type's block."""
    layout = _LAYOUTS[type]
    return num_values // layout.num_values * layout.num_bytes


@np.errstate(invalid="ignore")  # a damaged file may hold infinities and NaN, which the caller checks
def decode(content: bytes, type: TensorType) -> Float32Array:
    """The values in `content` as one row of float32, without rounding for every type."""
    match type:
        case TensorType.F32:
            return np.frombuffer(content, "<f4").astype(np.float32)
        case TensorType.F16:
            return np.frombuffer(content, "<f2").astype(np.float32)
        case TensorType.BF16:
            return widen_bfloat16(np.frombuffer(content, "<u2"))
        case TensorType.Q8_0:
            blocks = np.frombuffer(content, _Q8_0)
            values = blocks["values"].astype(np.float32)
        case TensorType.Q4_0:
            blocks = np.frombuffer(content, _Q4_0)
            low, high = blocks["nibbles"] & 0x0F, blocks["nibbles"] >> 4
            values = np.concatenate((low, high), axis=1).astype(np.float32) - 8
    scaled: Float32Array = values * blocks["scale"].astype(np.float32)[:, None]
    return scaled.reshape(-1)


def encode(values: Float32Array, type: TensorType) -> bytes:
    """The bytes of `values`, rounded to the nearest numbers of `type`; the last axis is a whole number of blocks.

    Raises OverflowError if a value is too large for float16, ValueError for Q4_0, which is read only.
    """
    match type:
        case TensorType.F32:
            return values.astype("<f4").tobytes()
        case TensorType.F16:
            return _to_float16(values).tobytes()
        case TensorType.BF16:
            return narrow_to_bfloat16(values).astype("<u2").tobytes()
        case TensorType.Q8_0:
            return _to_q8_0(values.reshape(-1, BLOCK_VALUES)).tobytes()
    raise ValueError(f"{type.name} can be read, but not written")


def narrow_to_bfloat16(values: Float32Array) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 numbers, ties to even; `values` must be finite."""
    bits = values.astype(np.float32).view(np.uint32)
    half = np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return ((bits + half) >> np.uint32(16)).astype(np.uint16)


def _to_q8_0(blocks: Float32Array) -> NDArray[np.void]:
    """Quantizes `blocks` (N, 32) with scale = max|block| / 127."""
    scales = np.abs(blocks).max(axis=1) / np.float32(127)
    inverses = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    quantized = np.empty(len(blocks), _Q8_0)
    quantized["scale"] = _to_float16(scales)
    quantized["values"] = _round_half_away(blocks * inverses[:, None])
    return quantized


def _round_half_away(values: Float32Array) -> Float32Array:
    # This is C's roundf, as in llama.cpp; np.round rounds 2.5 to 2.
    whole = np.trunc(values)
    rounded: Float32Array = whole + np.trunc(2 * (values - whole))
    return rounded


def _to_float16(values: Float32Array) -> NDArray[np.float16]:
    largest = float(np.abs(values).max(initial=0))
    if largest >= 65520:  # the nearest float16 is infinity
        raise OverflowError(f"{largest:g} is above float16's largest number, 65504")
    return values.astype("<f2")
