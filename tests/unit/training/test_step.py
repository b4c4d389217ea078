"""One update against plain PyTorch, accumulation against one large batch, and numbers that are not finite."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.config import ModelConfig, OptimizerConfig
from tinyllm.kernels.train import kernel_pass, library
from tinyllm.model.transformer import Transformer
from tinyllm.training.optimizer import build_optimizers, set_learning_rate
from tinyllm.training.step import TrainingAttention, Updater
from unit.kernels.train import plain_operators

NEEDS_KERNELS = pytest.mark.skipif(
    not library.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler"
)
WAYS = [
    ("float32", "fused"),
    ("bfloat16", "fused"),
    ("float16", "fused"),
    pytest.param("bfloat16", "tiled", marks=NEEDS_KERNELS),
]
CONFIG = ModelConfig(vocab_size=32, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, context_length=8)


def make(dtype: str = "float32", grad_clip: float = 1.0) -> tuple[Transformer, Updater]:
    torch.manual_seed(1)
    model = Transformer(CONFIG)
    optimizers = build_optimizers(model, OptimizerConfig())
    set_learning_rate(optimizers, 1e-2)
    return model, Updater(model, optimizers, dtype=dtype, grad_clip=grad_clip, device=torch.device("cpu"))


@pytest.fixture
def train_kernels(user_cache: Path) -> None:
    if library.is_supported():
        assert library.load(user_cache / "kernels", lambda line: None) == ""


def make_exact(dtype: str, attention: TrainingAttention, grad_clip: float = 0.0) -> tuple[Transformer, Updater]:
    """An update of it takes the gradient itself from the weights."""
    torch.manual_seed(1)
    model = Transformer(CONFIG)
    descent = torch.optim.SGD(model.parameters(), lr=1.0)
    device = torch.device("cpu")
    return model, Updater(model, [descent], dtype=dtype, grad_clip=grad_clip, device=device, attention=attention)


def batches(num: int) -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randint(32, (2, 9)) for _ in range(num)]


def test_one_update_is_adamw_as_pytorch_documents_it() -> None:
    model, updater = make()
    reference = copy.deepcopy(model)
    tokens = batches(1)[0]
    result = updater.update([tokens], num_targets=16)

    loss = F.cross_entropy(reference(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    for parameter in reference.parameters():
        decay = 0.1 if parameter.dim() == 2 else 0.0
        gradient = parameter.grad
        assert gradient is not None
        # Adam's first step is lr * sign(gradient): mean and root mean square are both the gradient's magnitude.
        move = gradient / (gradient.abs() + 1e-8)
        parameter.data = parameter * (1 - 1e-2 * decay) - 1e-2 * move
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.grad_norm == pytest.approx(norm.item(), rel=1e-6)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_targets", [0, -1])
def test_an_update_without_a_target_is_refused(num_targets: int) -> None:
    _, updater = make()
    with pytest.raises(ValueError, match=f"needs at least 1 target, and its batches have {num_targets}"):
        updater.update(batches(1), num_targets=num_targets)


def test_accumulated_microbatches_equal_one_large_batch() -> None:
    (accumulated, first), (whole, second) = make(), make()
    parts = batches(4)
    results = first.update(parts, num_targets=64), second.update([torch.cat(parts)], num_targets=64)
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)
    for a, b in zip(accumulated.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "attention"), WAYS)
@pytest.mark.parametrize("grad_clip", [0.0, 0.05, 100.0])
def test_every_path_uses_the_clipped_gradient_of_all_microbatches(
    train_kernels: None, dtype: str, attention: TrainingAttention, grad_clip: float
) -> None:
    model, updater = make_exact(dtype, attention, grad_clip)
    exact, parts = copy.deepcopy(model).double(), batches(3)
    before = [p.detach().clone() for p in model.parameters()]
    assert updater.warm_up(parts[0]) == ""
    assert all(p.grad is None for p in (*model.parameters(), *updater.shadow.parameters()))
    result = updater.update(parts, num_targets=48)

    tokens = torch.cat(parts)
    loss = F.cross_entropy(exact(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(exact.parameters(), grad_clip or math.inf).item()
    size = min(norm, grad_clip or norm)
    tolerance = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}[dtype]
    assert result.loss == pytest.approx(loss.item(), rel=tolerance)
    assert result.grad_norm == pytest.approx(norm, rel=tolerance)
    moves = [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]
    expected = [p.grad for p in exact.parameters() if p.grad is not None]
    errors = [(move - right).square().sum() for move, right in zip(moves, expected, strict=True)]
    assert sum(errors) ** 0.5 < tolerance * size
    for weight, shadow in zip(model.parameters(), updater.shadow.parameters(), strict=True):
        assert torch.equal(weight.to(shadow.dtype), shadow)


@pytest.mark.parametrize(("dtype", "attention"), WAYS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_every_path_skips_a_non_finite_update_and_then_continues_unchanged(
    train_kernels: None, dtype: str, attention: TrainingAttention, bad: float
) -> None:
    (model, updater), (twin, undisturbed) = make_exact(dtype, attention), make_exact(dtype, attention)
    assert isinstance(updater.shadow, Transformer)
    gain = updater.shadow.model.norm.weight.data
    right = gain.clone()
    gain[0] = bad
    poisoned = [p.detach().clone() for p in model.parameters()]
    assert updater.update(batches(1), num_targets=16).skipped
    for before, after in zip(poisoned, model.parameters(), strict=True):
        assert torch.equal(before.nan_to_num(), after.nan_to_num())
    gain.copy_(right)
    undisturbed.scaler.load_state_dict(updater.scaler.state_dict())
    assert updater.update(batches(2), num_targets=32) == undisturbed.update(batches(2), num_targets=32)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("grad_clip", [0.0, 0.05])
def test_the_kernels_path_updates_as_autograd_does(grad_clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On plain PyTorch in place of the compiled operators, so that every machine tests it."""
    monkeypatch.setattr(kernel_pass, "operators", plain_operators)
    ways: list[tuple[TrainingAttention, Transformer, Updater]] = [
        (attention, *make_exact("float32", attention, grad_clip)) for attention in ("tiled", "fused")
    ]
    results = [[updater.update(batches(3), 48), updater.update(batches(2), 32)] for _, _, updater in ways]
    for ours, theirs in zip(*results, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
    (_, tiled, updater), (_, fused, other) = ways
    for weight, expected in zip(tiled.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-5)
    assert updater.summed_loss(batches(1)[0]).item() == pytest.approx(other.summed_loss(batches(1)[0]).item(), rel=1e-4)


@NEEDS_KERNELS
def test_evaluation_uses_the_kernels_that_train(train_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _, updater = make_exact("bfloat16", "tiled")
    tokens = batches(1)[0]
    loss = updater.backward(tokens, 1)
    monkeypatch.setattr(updater.shadow, "forward", None)  # the autograd path must not run
    monkeypatch.setattr(updater.shadow, "hidden_states", None)
    assert updater.summed_loss(tokens) == loss


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_precision_learns_and_keeps_float32_weights(dtype: str) -> None:
    model, updater = make(dtype)
    tokens = batches(1)
    losses = [updater.update(tokens, num_targets=16).loss for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(p.grad is None for p in updater.shadow.parameters())


def test_only_matrices_decay() -> None:
    model, updater = make()
    groups = {group["weight_decay"]: {id(p) for p in group["params"]} for group in updater.optimizers[0].param_groups}
    assert groups[0.0] == {id(p) for name, p in model.named_parameters() if "norm" in name}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    model, updater = make()
    before = [p.clone() for p in model.parameters()]
    handle = next(model.parameters()).register_hook(lambda gradient: gradient * bad)  # type: ignore[no-untyped-call]
    assert updater.update(batches(1), num_targets=16).skipped
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not updater.update(batches(1), num_targets=16).skipped


def test_float16_overflow_is_left_to_the_scaler() -> None:
    model, updater = make("float16")
    scale = updater.scaler.get_scale()
    handle = next(updater.shadow.parameters()).register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
    result = updater.update(batches(1), num_targets=16)
    handle.remove()
    assert not result.skipped
    assert updater.scaler.get_scale() == scale / 2
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_clipping_can_be_turned_off() -> None:
    _, clipped = make(grad_clip=1e-3)
    _, free = make(grad_clip=0.0)
    assert (
        clipped.update(batches(1), num_targets=16).grad_norm == free.update(batches(1), num_targets=16).grad_norm > 0.01
    )
