"""Tests the row orders against the rotations they belong to, and that names are converted back."""

import numpy as np
import pytest
import torch

from tinyllm.config import ModelConfig
from tinyllm.exchange.layout import GGUF, LLAMA2C, Naming, to_half_split, to_interleaved
from tinyllm.model.rope import rotary_tables, rotate
from tinyllm.model.size import parameter_shapes

UNTIED = ModelConfig(vocab_size=32, hidden_size=16, num_layers=11, num_heads=2, tie_embeddings=False)


def test_interleaved_rows_rotated_in_pairs_give_the_same_scores() -> None:
    """Compares complex multiplication of neighbouring channels, as in llama2.c, with `rotate` on permuted rows."""
    heads, channels, positions = 3, 8, 5
    weight = np.random.default_rng(0).standard_normal((heads * channels, 16)).astype(np.float32)
    x = torch.randn(positions, 16)
    cos, sin = rotary_tables(positions, channels)

    theirs = (x @ torch.from_numpy(weight).T).view(positions, heads, channels // 2, 2)
    rotated = torch.view_as_complex(theirs) * torch.complex(cos, sin)[:, None]
    ours = (x @ torch.from_numpy(to_half_split(weight, heads)).T).view(1, positions, heads, channels).transpose(1, 2)
    half = rotate(ours, cos, sin)[0].transpose(0, 1)

    torch.testing.assert_close(half, torch.cat((rotated.real, rotated.imag), dim=-1))


def test_the_two_permutations_are_inverse() -> None:
    weight = np.arange(48 * 4, dtype=np.float32).reshape(48, 4)
    assert (to_interleaved(to_half_split(weight, 4), 4) == weight).all()
    assert not (to_half_split(weight, 4) == weight).all()


@pytest.mark.parametrize("naming", [LLAMA2C, GGUF])
def test_names_are_distinct_and_converted_back(naming: Naming) -> None:
    names = list(parameter_shapes(UNTIED))
    theirs = [naming.from_hugging_face(name) for name in names]
    assert len(set(theirs)) == len(names)
    assert [naming.to_hugging_face(name) for name in theirs] == names


def test_an_unknown_name_is_unchanged() -> None:
    for name in ("layers.0.attention.bias", "layers.x.attention.wq.weight", "lm_head", "layers.", "freqs_cis"):
        assert LLAMA2C.to_hugging_face(name) == name
