"""The row orders against the rotation they stand for, and names against their own way back."""

import numpy as np
import pytest
import torch

from tinyllm.config import ModelConfig
from tinyllm.exchange.layout import GGUF, LLAMA2C, Naming, to_half_split, to_interleaved
from tinyllm.model.rope import rotary_tables, rotate
from tinyllm.model.size import parameter_shapes

UNTIED = ModelConfig(vocab_size=32, hidden_size=16, num_layers=11, num_heads=2, tie_embeddings=False)


def test_interleaved_rows_turned_in_pairs_give_the_same_scores() -> None:
    """Complex multiplication of neighbouring channels, as llama2.c has it, against ours on permuted rows."""
    heads, channels, positions = 3, 8, 5
    weight = np.random.default_rng(0).standard_normal((heads * channels, 16)).astype(np.float32)
    x = torch.randn(positions, 16)
    cos, sin = rotary_tables(positions, channels)

    theirs = (x @ torch.from_numpy(weight).T).view(positions, heads, channels // 2, 2)
    turned = torch.view_as_complex(theirs) * torch.complex(cos, sin)[:, None]
    ours = (x @ torch.from_numpy(to_half_split(weight, heads)).T).view(1, positions, heads, channels).transpose(1, 2)
    half = rotate(ours, cos, sin)[0].transpose(0, 1)

    torch.testing.assert_close(half, torch.cat((turned.real, turned.imag), dim=-1))


def test_the_two_orders_undo_each_other() -> None:
    weight = np.arange(48 * 4, dtype=np.float32).reshape(48, 4)
    assert (to_interleaved(to_half_split(weight, 4), 4) == weight).all()
    assert not (to_half_split(weight, 4) == weight).all()


@pytest.mark.parametrize("naming", [LLAMA2C, GGUF])
def test_every_name_of_a_llama_has_one_of_its_own_and_comes_back(naming: Naming) -> None:
    names = list(parameter_shapes(UNTIED))
    theirs = [naming.from_hugging_face(name) for name in names]
    assert len(set(theirs)) == len(names)
    assert [naming.to_hugging_face(name) for name in theirs] == names


def test_a_name_that_the_format_does_not_know_stays() -> None:
    for name in ("layers.0.attention.bias", "layers.x.attention.wq.weight", "lm_head", "layers.", "freqs_cis"):
        assert LLAMA2C.to_hugging_face(name) == name
