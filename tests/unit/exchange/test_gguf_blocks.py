"""Tests the number formats against their definitions; tests/contract compares them with the gguf package."""

import numpy as np
import pytest

from tinyllm.exchange.gguf_blocks import (
    TensorType,
    decode,
    encode,
    fits,
    narrow_to_bfloat16,
    size_bytes,
)
from tinyllm.safetensors_file import widen_bfloat16

VALUES = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)


@pytest.mark.parametrize(
    ("type", "relative_error"),
    [(TensorType.F32, 0), (TensorType.F16, 2**-11), (TensorType.BF16, 2**-8)],
)
def test_floats_are_read_back_rounded_to_their_precision(type: TensorType, relative_error: float) -> None:
    content = encode(VALUES, type)
    assert len(content) == size_bytes(type, VALUES.size)
    assert (np.abs(decode(content, type).reshape(4, 64) - VALUES) <= relative_error * np.abs(VALUES)).all()


def test_q8_0_differs_by_at_most_half_a_step() -> None:
    read = decode(encode(VALUES, TensorType.Q8_0), TensorType.Q8_0).reshape(8, 32)
    blocks = VALUES.reshape(8, 32)
    steps = np.abs(blocks).max(axis=1, keepdims=True) / 127
    # The scale is a float16 with a relative error of 2^-11, which is multiplied by up to 127.
    assert (np.abs(read - blocks) <= steps * (0.5 + 127 * 2**-11)).all()


def test_q4_0_stores_low_nibbles_first() -> None:
    content = np.float16(2).tobytes() + bytes(range(0x80, 0x90))
    values = decode(content, TensorType.Q4_0)
    np.testing.assert_array_equal(values[:16], 2 * (np.arange(16) - 8))
    np.testing.assert_array_equal(values[16:], np.zeros(16))


def test_bfloat16_rounds_ties_to_even() -> None:
    ties = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)
    np.testing.assert_array_equal(narrow_to_bfloat16(ties), [0x3F80, 0x3F82])
    assert widen_bfloat16(np.array([0x4049], np.uint16)) == np.float32(3.140625)


def test_a_block_of_zeros_stays_zeros() -> None:
    assert not decode(encode(np.zeros((1, 32), np.float32), TensorType.Q8_0), TensorType.Q8_0).any()


@pytest.mark.parametrize("type", [TensorType.F16, TensorType.Q8_0])
def test_values_above_float16_are_refused(type: TensorType) -> None:
    with pytest.raises(OverflowError, match="above float16's largest number"):
        encode(np.full((1, 32), 1e8, np.float32), type)


def test_rows_must_be_whole_blocks() -> None:
    assert fits(TensorType.Q8_0, 64)
    assert not fits(TensorType.Q4_0, 48)
    assert fits(TensorType.BF16, 7)
