"""Weights as the compiled program reads them, against PyTorch's conversions."""

import numpy as np
import pytest
import torch

from tinyllm.config import ModelConfig, WeightsKind
from tinyllm.kernels.decode.blocks import CACHE_LINE_BYTES
from tinyllm.kernels.decode.weights import (
    PackedWeights,
    aligned_zeros,
    padded,
    quantize_rows,
    round_to_bfloat16,
)
from tinyllm.model.transformer import Transformer
from unit.kernels.decode.compiled import random_floats


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    numbers = np.concatenate((random_floats(1_000), np.array([1 + 2**-8, 1 + 3 * 2**-8, 0, -0.0], np.float32)))
    expected = torch.tensor(numbers).bfloat16().view(torch.int16).numpy()
    np.testing.assert_array_equal(round_to_bfloat16(numbers).view(np.int16), expected)


def test_int8_rows_have_127_steps_up_to_their_largest_number() -> None:
    rows = random_floats(3, 50)
    rows[1] = 0
    numbers, scales = quantize_rows(rows)
    assert np.abs(numbers).max(axis=1).tolist() == [127, 0, 127]
    np.testing.assert_allclose(numbers * scales[:, None], rows, atol=scales.max() / 2 * 1.001)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 32), (32, 32), (33, 64)])
def test_padded_is_the_next_multiple(count: int, expected: int) -> None:
    assert padded(count) == expected


def test_memory_begins_at_a_cache_line() -> None:
    for size in range(1, 40):
        zeros = aligned_zeros((size, 3), np.int16)
        assert zeros.ctypes.data % CACHE_LINE_BYTES == 0
        assert zeros.shape == (size, 3)
        assert not zeros.any()


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_matrices_lie_in_the_order_of_a_pass(kind: WeightsKind, tie: bool) -> None:
    config = ModelConfig(vocab_size=37, hidden_size=36, num_layers=2, num_heads=3, num_kv_heads=1, tie_embeddings=tie)
    model = Transformer(config)
    tensors = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    packed = PackedWeights(config, tensors, kind)
    layers = [
        np.concatenate([tensors[f"model.layers.{layer}.{name}.weight"] for name in names])
        for layer in range(2)
        for names in (
            [f"self_attn.{name}_proj" for name in "qkv"],
            ["self_attn.o_proj"],
            ["mlp.gate_proj", "mlp.up_proj"],
            ["mlp.down_proj"],
        )
    ]
    output = tensors["model.embed_tokens.weight" if tie else "lm_head.weight"]
    expected_matrices = [tensors["model.embed_tokens.weight"], *layers, output]
    assert (np.diff(packed.matrices["start"])[: -1 if tie else None] > 0).all()
    for (start, row, num_rows, columns), expected in zip(packed.matrices.tolist(), expected_matrices, strict=True):
        assert num_rows == len(expected)
        rows = packed.numbers[start : start + num_rows * columns].reshape(num_rows, columns)
        scales = packed.scales[row : row + num_rows, None]
        np.testing.assert_allclose(
            rows[:, : expected.shape[1]] * scales, expected, atol=scales.max() / 2 * (kind == "int8")
        )
        assert not rows[:, expected.shape[1] :].any(), "the padding is 0"
