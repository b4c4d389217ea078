"""The custom kernels against autograd: their error to float64 is at most that of PyTorch in bfloat16."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.config import ModelConfig
from tinyllm.kernels.train import library
from tinyllm.kernels.train.kernel_pass import KernelPass
from tinyllm.model.transformer import Transformer

pytestmark = pytest.mark.skipif(not library.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler")


@pytest.fixture(autouse=True)
def kernels(user_cache: Path) -> None:
    assert library.load(user_cache / "kernels", lambda line: None) == ""


def make(tie_embeddings: bool = True) -> Transformer:
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=97,
        hidden_size=48,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        context_length=64,
        norm_eps=1e-3,
        tie_embeddings=tie_embeddings,
    )
    return Transformer(shape).train()


def differentiate(model: Transformer, tokens: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Sum of losses / 5, and its gradients by autograd."""
    copied = copy.deepcopy(model).to(dtype)
    logits = copied(tokens[:, :-1]).flatten(0, 1)
    loss = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum") / 5
    return [loss.detach(), *torch.autograd.grad(loss, list(copied.parameters()))]


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("length", [41, 2])
def test_a_whole_model_has_the_gradients_of_autograd(tie_embeddings: bool, length: int) -> None:
    model, tokens = make(tie_embeddings), torch.randint(97, (3, length))
    passes = KernelPass(copy.deepcopy(model).bfloat16())
    loss = passes.backward(tokens, 5, adds=False)
    assert len(passes.gradients) == len(list(model.parameters()))
    theirs, truth = (differentiate(model, tokens, dtype) for dtype in (torch.bfloat16, torch.float64))
    largest = max(
        right.norm() for right in truth
    )  # for windows of one token, the gradient of queries is rounding noise
    for our, their, right in zip([loss, *passes.gradients], theirs, truth, strict=True):
        assert our.dtype == torch.float32
        assert (our - right).norm() <= 1.3 * (their - right).norm() + 1e-3 * right.norm() + 1e-6 * largest
    assert passes.summed_loss(tokens) / 5 == pytest.approx(loss.item(), rel=1e-6)
    assert torch.equal(passes.gradient, torch.cat([gradient.flatten() for gradient in passes.gradients]))


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_gradients_of_microbatches_sum_to_the_gradient_of_the_batch(tie_embeddings: bool) -> None:
    passes, tokens = KernelPass(make(tie_embeddings).bfloat16()), torch.randint(97, (4, 20))
    passes.backward(tokens, 5, adds=False)
    whole = passes.gradient.clone()
    for index, part in enumerate(tokens.split(1)):
        passes.backward(part, 5, adds=index > 0)
    torch.testing.assert_close(passes.gradient, whole, rtol=0.02, atol=0.005 * whole.abs().max().item())


def test_the_next_pass_uses_changed_weights() -> None:
    """The projection matrices are views: they must change when the optimizer's weights are copied in."""
    model, tokens = make().bfloat16(), torch.randint(97, (2, 20))
    passes = KernelPass(model)
    before = passes.summed_loss(tokens)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(3)
    torch._foreach_copy_([parameter.data for parameter in model.parameters()], list(changed.parameters()))
    after = passes.summed_loss(tokens)
    assert after == KernelPass(changed).summed_loss(tokens)
    assert after != before


def test_a_window_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="70 tokens are more than the context of 64"):
        KernelPass(make().bfloat16()).summed_loss(torch.randint(97, (1, 71)))


def test_the_norm_of_many_numbers_is_exact() -> None:
    shape = ModelConfig(vocab_size=4096, hidden_size=512, num_layers=1, num_heads=4, num_kv_heads=4)
    passes = KernelPass(Transformer(shape).bfloat16())
    torch.manual_seed(0)
    passes.gradient.copy_(1e-3 * torch.randn(len(passes.gradient)))
    assert passes.gradient_norm().item() == pytest.approx(passes.gradient.double().norm().item(), rel=1e-6)
