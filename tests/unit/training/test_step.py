"""One update against plain PyTorch, accumulation against one large batch, and numbers that go wrong."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.config import ModelConfig, OptimizerConfig
from tinyllm.model.transformer import Transformer
from tinyllm.training.optimizer import build_optimizers, set_learning_rate
from tinyllm.training.step import Updater

CONFIG = ModelConfig(vocab_size=32, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, context_length=8)


def make(dtype: str = "float32", grad_clip: float = 1.0) -> tuple[Transformer, Updater]:
    torch.manual_seed(1)
    model = Transformer(CONFIG)
    optimizers = build_optimizers(model, OptimizerConfig())
    set_learning_rate(optimizers, 1e-2)
    return model, Updater(model, optimizers, dtype=dtype, grad_clip=grad_clip, device=torch.device("cpu"))


def batches(num: int) -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randint(32, (2, 9)) for _ in range(num)]


def test_one_update_is_adamw_as_pytorch_documents_it() -> None:
    model, updater = make()
    reference = copy.deepcopy(model)
    tokens = batches(1)[0]
    result = updater.update([tokens], num_tokens=16)

    loss = F.cross_entropy(reference(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    for parameter in reference.parameters():
        decay = 0.1 if parameter.dim() == 2 else 0.0
        gradient = parameter.grad
        assert gradient is not None
        # The first step of Adam moves by the sign of the gradient: mean and root of squares are both the gradient.
        move = gradient / (gradient.abs() + 1e-8)
        parameter.data = parameter * (1 - 1e-2 * decay) - 1e-2 * move
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.grad_norm == pytest.approx(norm.item(), rel=1e-6)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_accumulated_microbatches_are_one_large_batch() -> None:
    (accumulated, first), (whole, second) = make(), make()
    parts = batches(4)
    results = first.update(parts, num_tokens=64), second.update([torch.cat(parts)], num_tokens=64)
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)
    for a, b in zip(accumulated.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_precision_learns_and_keeps_float32_weights(dtype: str) -> None:
    model, updater = make(dtype)
    tokens = batches(1)
    losses = [updater.update(tokens, num_tokens=16).loss for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(p.grad is None for p in updater.worker.parameters())


def test_only_matrices_decay() -> None:
    model, updater = make()
    groups = {group["weight_decay"]: {id(p) for p in group["params"]} for group in updater.optimizers[0].param_groups}
    assert groups[0.0] == {id(p) for name, p in model.named_parameters() if "norm" in name}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    model, updater = make()
    before = [p.clone() for p in model.parameters()]
    handle = next(model.parameters()).register_hook(lambda gradient: gradient * bad)
    assert updater.update(batches(1), num_tokens=16).skipped
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not updater.update(batches(1), num_tokens=16).skipped


def test_float16_overflow_is_left_to_the_scaler() -> None:
    model, updater = make("float16")
    scale = updater.scaler.get_scale()
    handle = next(updater.worker.parameters()).register_hook(lambda gradient: gradient * math.inf)
    result = updater.update(batches(1), num_tokens=16)
    handle.remove()
    assert not result.skipped
    assert updater.scaler.get_scale() == scale / 2
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_clipping_can_be_turned_off() -> None:
    _, clipped = make(grad_clip=1e-3)
    _, free = make(grad_clip=0.0)
    assert (
        clipped.update(batches(1), num_tokens=16).grad_norm == free.update(batches(1), num_tokens=16).grad_norm > 0.01
    )
