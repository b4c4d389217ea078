"""`KernelPass` against autograd of the Transformer: on plain PyTorch everywhere, on the compiled kernels with AMX."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.config import ModelConfig
from tinyllm.kernels.train import kernel_pass, library
from tinyllm.kernels.train.kernel_pass import KernelPass
from tinyllm.model.transformer import Transformer
from tinyllm.training.loss import IGNORED, sum_losses
from unit.kernels.train import plain_operators

NEEDS_AMX = pytest.mark.skipif(not library.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler")

SHAPES = {
    "grouped heads": {"num_heads": 4, "num_kv_heads": 2},
    "one head for all queries": {"num_heads": 6, "num_kv_heads": 1, "hidden_size": 24},
    "as many heads as queries": {"num_heads": 4, "num_kv_heads": 4, "num_layers": 1},
    "odd feed-forward size": {"num_heads": 2, "num_kv_heads": 2, "intermediate_size": 37},
}


@pytest.fixture(params=["plain", pytest.param("compiled", marks=NEEDS_AMX)], autouse=True)
def implementation(request: pytest.FixtureRequest, user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which operators the passes run on."""
    name: str = request.param
    if name == "plain":
        monkeypatch.setattr(kernel_pass, "operators", plain_operators)
    else:
        assert library.load(user_cache / "kernels", lambda line: None) == ""
    return name


def make(tie_embeddings: bool = True, **fields: Any) -> Transformer:
    """A model with random weights."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"hidden_size": 48, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2} | fields
    config = ModelConfig(vocab_size=97, context_length=64, norm_eps=1e-3, tie_embeddings=tie_embeddings, **settings)
    return Transformer(config).train()


def windows(num: int, length: int, *, masked: bool = False) -> tuple[Tensor, Tensor]:
    """Inputs and targets, (`num`, `length` - 1) each; `masked` ignores a third of the targets and a whole window."""
    tokens = torch.randint(97, (num, length))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    if masked:
        targets[torch.rand(targets.shape) < 1 / 3] = IGNORED
        targets[-1] = IGNORED
        targets[0, 0] = 7
    return inputs, targets


def differentiate(model: Transformer, inputs: Tensor, targets: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Sum of losses / 5, and its gradients by autograd of the loss that trains without kernels."""
    copied = copy.deepcopy(model).to(dtype)
    if dtype == torch.float64:  # the loss of training has float32 logits
        logits = copied(inputs).flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum") / 5
    else:
        loss = sum_losses(copied.hidden_states(inputs), copied.output_weight, targets) / 5
    return [loss.detach(), *torch.autograd.grad(loss, list(copied.parameters()))]


def assert_as_precise(ours: Sequence[Tensor], theirs: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
    """Each of `ours` is as near to `truth` as `theirs`, within 1.3 x and 0.1 % of its size.

    With windows of one token the gradients of queries and keys are rounding noise: the largest gradient bounds it.
    """
    largest = max(right.norm() for right in truth)
    for our, their, right in zip(ours, theirs, truth, strict=True):
        assert our.dtype == torch.float32
        assert (our - right).norm() <= 1.3 * (their - right).norm() + 1e-3 * right.norm() + 1e-6 * largest


MASKS = pytest.mark.parametrize("masked", [False, True], ids=["every target counts", "some targets are ignored"])


@MASKS
@pytest.mark.parametrize("tie_embeddings", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("length", [41, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_in_bfloat16_are_as_precise_as_autograd(
    shape: str, length: int, tie_embeddings: bool, masked: bool
) -> None:
    model, batch = make(tie_embeddings, **SHAPES[shape]), windows(3, length, masked=masked)
    passes = KernelPass(copy.deepcopy(model).bfloat16())
    loss = passes.backward(*batch, 5, accumulate=False)
    theirs, truth = (differentiate(model, *batch, dtype) for dtype in (torch.bfloat16, torch.float64))
    assert_as_precise([loss, *passes.gradients], theirs, truth)
    assert passes.summed_loss(*batch) / 5 == pytest.approx(loss.item(), rel=1e-6)
    assert torch.equal(passes.gradient, torch.cat([gradient.flatten() for gradient in passes.gradients]))


@MASKS
@pytest.mark.parametrize("implementation", ["plain"], indirect=True)
@pytest.mark.parametrize("tie_embeddings", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("length", [65, 41, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_in_float32_equal_those_of_autograd(
    shape: str, length: int, tie_embeddings: bool, masked: bool
) -> None:
    model, batch = make(tie_embeddings, **SHAPES[shape]), windows(3, length, masked=masked)
    expected = differentiate(model, *batch, torch.float32)
    passes = KernelPass(copy.deepcopy(model))
    loss = passes.backward(*batch, 5, accumulate=False)
    torch.testing.assert_close([loss, *passes.gradients], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tie_embeddings", [True, False], ids=["tied", "untied"])
def test_gradients_of_microbatches_sum_to_the_gradient_of_the_batch(tie_embeddings: bool) -> None:
    passes, (inputs, targets) = KernelPass(make(tie_embeddings).bfloat16()), windows(4, 20, masked=True)
    passes.backward(inputs, targets, 5, accumulate=False)
    whole = passes.gradient.clone()
    for row in range(4):
        passes.backward(inputs[row, None], targets[row, None], 5, accumulate=row > 0)
    torch.testing.assert_close(passes.gradient, whole, rtol=0.02, atol=0.005 * whole.abs().max().item())


def test_the_next_pass_uses_changed_weights() -> None:
    """The projection matrices are views: they must change when the optimizer's weights are copied in."""
    model, batch = make().bfloat16(), windows(2, 20)
    passes = KernelPass(model)
    before = passes.summed_loss(*batch)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(3)
    torch._foreach_copy_([parameter.data for parameter in model.parameters()], list(changed.parameters()))
    after = passes.summed_loss(*batch)
    assert after == KernelPass(changed).summed_loss(*batch)
    assert after != before


def test_a_batch_without_a_target_has_neither_loss_nor_gradient() -> None:
    """A text that is all prompt gives such a batch."""
    inputs, targets = windows(2, 20)
    passes = KernelPass(make().bfloat16())
    assert passes.backward(inputs, torch.full_like(targets, IGNORED), 5, accumulate=False) == 0
    assert not passes.gradient.any()
    assert passes.summed_loss(inputs, torch.full_like(targets, IGNORED)) == 0


def test_a_window_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="70 tokens are more than the context of 64"):
        KernelPass(make().bfloat16()).summed_loss(*windows(1, 71))


def test_gradient_norm_is_exact_for_many_numbers() -> None:
    config = ModelConfig(vocab_size=4096, hidden_size=512, num_layers=1, num_heads=4, num_kv_heads=4)
    passes = KernelPass(Transformer(config).bfloat16())
    torch.manual_seed(0)
    passes.gradient.copy_(1e-3 * torch.randn(len(passes.gradient)))
    assert passes.gradient_norm().item() == pytest.approx(passes.gradient.double().norm().item(), rel=1e-6)
