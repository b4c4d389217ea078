"""The loss in chunks of tokens against the loss of whole logits: value, gradients, memory, updates."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tinyllm.config import ModelConfig, OptimizerConfig
from tinyllm.machine import compiler
from tinyllm.model.transformer import Transformer
from tinyllm.training import chunked_loss, memory
from tinyllm.training.loss import IGNORED, sum_losses
from tinyllm.training.optimizer import build_optimizers, set_learning_rate
from tinyllm.training.step import Updater

VOCABULARY, WIDTH = 61, 16
NUM_TOKENS = 3 * 7


def make_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (3, 7, 16), output weight (61, 16), and targets, some of which do not count."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(3, 7, WIDTH).to(dtype), torch.randn(VOCABULARY, WIDTH).to(dtype)
    targets = torch.randint(VOCABULARY, (3, 7))
    targets[0, 1:4] = targets[2] = IGNORED
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return [each.float() for each in torch.autograd.grad(loss / 11, tensors)]


@pytest.mark.parametrize("num_tokens", [1, 4, NUM_TOKENS - 1, NUM_TOKENS, 100])
def test_loss_and_gradients_are_those_of_whole_logits(num_tokens: int) -> None:
    hidden, weight, targets = make_inputs()
    expected = sum_losses(hidden, weight, targets)
    loss = chunked_loss.sum_losses_in_chunks(hidden, weight, targets, num_tokens)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    ours, theirs = gradients(loss, hidden, weight), gradients(expected, hidden, weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert not ours[0][targets == IGNORED].any()


def test_in_bfloat16_the_error_is_at_most_that_of_whole_logits() -> None:
    hidden, weight, targets = make_inputs(torch.bfloat16)
    wide_hidden, wide_weight = (each.detach().double().requires_grad_() for each in (hidden, weight))
    logits = F.linear(wide_hidden, wide_weight).flatten(0, 1)
    exact_loss = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
    exact = gradients(exact_loss, wide_hidden, wide_weight)
    whole = gradients(sum_losses(hidden, weight, targets), hidden, weight)
    chunks = gradients(chunked_loss.sum_losses_in_chunks(hidden, weight, targets, 4), hidden, weight)
    for truth, reference, ours in zip(exact, whole, chunks, strict=True):
        assert (ours - truth).norm() < 1.2 * (reference - truth).norm() + 1e-3 * truth.norm()
        assert (ours - truth).norm() < 0.01 * truth.norm()


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_weight_or_frozen_blocks_get_no_gradient(frozen: int) -> None:
    hidden, weight, targets = make_inputs()
    trained = (hidden, weight)[1 - frozen]
    (hidden, weight)[frozen].requires_grad_(False)
    (expected,) = gradients(sum_losses(hidden, weight, targets), trained)
    loss = chunked_loss.sum_losses_in_chunks(hidden, weight, targets, 5)
    torch.testing.assert_close(gradients(loss, trained)[0], expected, rtol=1e-5, atol=1e-7)


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, targets = make_inputs()
    with torch.no_grad():
        loss = chunked_loss.sum_losses_in_chunks(hidden, weight, targets, 5, _never)
    torch.testing.assert_close(loss, sum_losses(hidden, weight, targets).detach(), rtol=1e-6, atol=0)
    assert not loss.requires_grad


def _never(hidden: Tensor, output_weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    raise AssertionError("no gradient is needed")


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the most elements of any result of an operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor):
                self.numel = max(self.numel, each.numel())
        return result


def test_no_tensor_is_as_large_as_the_logits() -> None:
    hidden, weight, targets = make_inputs()
    with LargestTensor() as whole:
        gradients(sum_losses(hidden, weight, targets), hidden, weight)
    with LargestTensor() as chunks:
        gradients(chunked_loss.sum_losses_in_chunks(hidden, weight, targets, 2), hidden, weight)
    assert whole.numel == NUM_TOKENS * VOCABULARY
    assert chunks.numel == weight.numel()


def test_chunks_are_for_large_logits_on_cuda_alone() -> None:
    """Shapes are those of 16 windows of 1,024 tokens and 32,000 tokens of vocabulary; no memory is needed for them."""
    weight = torch.empty(32_000, 768, device="meta", dtype=torch.bfloat16)
    assert memory.chunk_tokens(32_000) == 1048
    assert memory.chunk_tokens(2**40) == 1
    assert not chunked_loss.pays_off(torch.empty(16, 1024, 768, device="meta", dtype=torch.bfloat16), weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_the_head_needs_a_fraction_of_the_memory_of_its_logits() -> None:
    hidden = torch.randn(16, 1024, 768, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(32_000, 768, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(32_000, (16, 1024), device="cuda")
    assert chunked_loss.pays_off(hidden, weight)
    assert not chunked_loss.pays_off(hidden[:1], weight)
    assert not chunked_loss.pays_off(hidden.half(), weight.half())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    num_tokens = memory.chunk_tokens(32_000)
    gradients(chunked_loss.sum_losses_in_chunks(hidden, weight, targets, num_tokens), hidden, weight)
    assert torch.cuda.max_memory_allocated() - before < 16 * 1024 * 32_000 * 4 / 2


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updates_in_chunks_are_those_of_whole_logits(dtype: str, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = losses_of_updates(dtype, tied)
    monkeypatch.setattr(chunked_loss, "pays_off", lambda hidden, weight: True)
    monkeypatch.setattr(memory, "CHUNK_BYTES", 4 * 32 * 5)
    chunks = losses_of_updates(dtype, tied)
    assert chunks == pytest.approx(whole, rel=2e-5 if dtype == "float32" else 5e-3)
    assert chunks[-1] < chunks[0] - 0.1


@pytest.mark.slow
@pytest.mark.skipif(not compiler.has_cpp_compiler(), reason="needs a C++ compiler")
def test_compiled_chunks_give_the_same_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = losses_of_updates("float32", tied=True)
    monkeypatch.setattr(chunked_loss, "pays_off", lambda hidden, weight: True)
    monkeypatch.setattr(memory, "CHUNK_BYTES", 4 * 32 * 5)
    assert losses_of_updates("float32", tied=True, compiled=True) == pytest.approx(whole, rel=2e-5)


def losses_of_updates(dtype: str, tied: bool, compiled: bool = False) -> list[float]:
    """The losses of eight updates on two batches, 16 targets each."""
    torch.manual_seed(1)
    shape: dict[str, Any] = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
    model = Transformer(ModelConfig(vocab_size=32, context_length=8, tie_embeddings=tied, **shape))
    optimizers = build_optimizers(model, OptimizerConfig())
    set_learning_rate(optimizers, 1e-2)
    updater = Updater(model, optimizers, dtype=dtype, grad_clip=1.0, device=torch.device("cpu"), compiled=compiled)
    batches = [torch.randint(32, (2, 9)) for _ in range(2)]
    assert not compiled or updater.warm_up(batches[0]) == ""
    return [updater.update(batches, 32).loss for _ in range(8)]
