"""Initial weights: their spread by name, and that one seed makes one model."""

import math

import pytest
import torch

from tinyllm.config import ModelConfig
from tinyllm.model.init import initial_deviation
from tinyllm.model.transformer import Transformer

CONFIG = ModelConfig(vocab_size=256, hidden_size=128, num_layers=8, num_heads=4, tie_embeddings=False)


def test_each_matrix_has_its_deviation_and_each_gain_is_one() -> None:
    torch.manual_seed(0)
    for name, parameter in Transformer(CONFIG).named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))
            continue
        expected = 0.02 / math.sqrt(16) if "o_proj" in name or "down_proj" in name else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
        assert abs(parameter.mean().item()) < 0.1 * expected


def test_the_residual_projections_are_o_proj_and_down_proj() -> None:
    narrow = {name for name in Transformer(CONFIG).state_dict() if initial_deviation(name, 8) < 0.02}
    assert {name.split(".")[-2] for name in narrow} == {"o_proj", "down_proj"}
    assert len(narrow) == 2 * CONFIG.num_layers


def test_one_seed_makes_one_model() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.nn.utils.parameters_to_vector(Transformer(CONFIG).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_fresh_logits_are_near_uniform() -> None:
    """A fresh model's loss is ln V: the scale fits the depth."""
    torch.manual_seed(0)
    tokens = torch.randint(0, CONFIG.vocab_size, (4, 64))
    with torch.no_grad():
        logits = Transformer(CONFIG)(tokens[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(CONFIG.vocab_size), abs=0.1)
