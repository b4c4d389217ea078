"""Muon against PyTorch's Muon, and against its definition: singular values of about 1."""

import copy

import pytest
import torch
from torch import nn

from tinyllm.config import ModelConfig, OptimizerConfig
from tinyllm.model.transformer import Transformer
from tinyllm.training.muon import Muon, orthogonalize
from tinyllm.training.optimizer import build_optimizers


def test_updates_equal_those_of_torch() -> None:
    torch.manual_seed(4)
    ours = [nn.Parameter(torch.randn(shape)) for shape in [(8, 8), (8, 24), (24, 8), (8, 24)]]
    theirs = copy.deepcopy(ours)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    optimizer = Muon(ours, lr=0.02, weight_decay=0.1)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        optimizer.step()
        reference.step()  # type: ignore[no-untyped-call]
    for a, b in zip(ours, theirs, strict=True):
        # Both iterate in bfloat16, but batch the matrix products differently.
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(5)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    # Muon's quintic does not converge to 1: it moves singular values into about 0.7 to 1.2.
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_gets_the_hidden_matrices_and_adamw_the_rest() -> None:
    config = ModelConfig(vocab_size=32, hidden_size=16, num_layers=1, num_heads=2, tie_embeddings=False)
    model = Transformer(config)
    adamw, muon = build_optimizers(model, OptimizerConfig(name="muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    owned = [[names[p] for group in o.param_groups for p in group["params"]] for o in (adamw, muon)]
    assert sorted(owned[0] + owned[1]) == sorted(names.values())
    assert all("proj" in name for name in owned[1])
    assert {name for name in owned[0] if "norm" not in name} == {"model.embed_tokens.weight", "lm_head.weight"}
