"""Scaled frequencies: alike for both array types, with the limits of each rule."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tinyllm.config import ModelConfig
from tinyllm.model.rope_scaling import scale_frequencies

FREQUENCIES = np.array([1.0, 0.2, 0.05, 0.001], np.float32)


def config_of(**fields: Any) -> ModelConfig:
    return ModelConfig(vocab_size=8, hidden_size=32, num_heads=4, context_length=256, **fields)


@pytest.mark.parametrize("kind", ["none", "dynamic"])
def test_plain_frequencies_are_not_copied(kind: str) -> None:
    assert scale_frequencies(FREQUENCIES, config_of(rope_scaling=kind, rope_factor=3.0)) is FREQUENCIES


def test_linear_scaling_divides() -> None:
    scaled = scale_frequencies(FREQUENCIES, config_of(rope_scaling="linear", rope_factor=4.0))
    np.testing.assert_array_equal(scaled, FREQUENCIES / 4)


def test_llama3_keeps_fast_frequencies_and_divides_slow_ones() -> None:
    """With 64 tokens, frequencies of 10, 2, 0.5 and 0.01 turns; those of 1 to 4 turns are mixed."""
    config = config_of(rope_scaling="llama3", rope_factor=8.0, rope_original_context=64)
    fast, mixed, slow, slowest = scale_frequencies(FREQUENCIES, config)
    share = (64 * 0.2 / (2 * math.pi) - 1) / 3
    assert fast == 1
    assert mixed == pytest.approx((1 - share) * 0.2 / 8 + share * 0.2, rel=1e-6)
    assert (slow, slowest) == (np.float32(0.05) / 8, np.float32(0.001) / 8)


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_tensors_and_arrays_are_scaled_alike(kind: str) -> None:
    config = config_of(rope_scaling=kind, rope_factor=8.0, rope_original_context=64)
    array = scale_frequencies(FREQUENCIES, config)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(scale_frequencies(torch.from_numpy(FREQUENCIES), config).numpy(), array)
