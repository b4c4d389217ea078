"""Cross entropy of a large vocabulary in chunks of tokens: the logits (N, V) are never whole in memory.

A chunk's gradient is computed together with its loss, while its logits exist (Hsu et al. 2024, Liger Kernel):

    P = softmax(X W^T),   dX = (P - Y) W,   dW = (P - Y)^T X

Y has a one at the target of each row. The backward pass only scales dX and dW.

Shapes: N tokens, D model size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.kernels.train.operators import IGNORED
from tinyllm.training.memory import chunk_tokens

ChunkLoss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def pays_off(hidden: Tensor, output_weight: Tensor) -> bool:
    """Whether the loss of `hidden` (B, T, D) should be computed in chunks: on CUDA, if there are two or more.

    In float16, P - Y would underflow before the gradient scaler's factor reaches it, so logits stay whole.
    """
    num_tokens = hidden.shape[0] * hidden.shape[1]
    is_large = num_tokens > chunk_tokens(output_weight.shape[0])
    return hidden.is_cuda and hidden.dtype != torch.float16 and is_large


def loss_and_gradient(hidden: Tensor, output_weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss of `targets` (N,) given `hidden` (N, D), and P - Y (N, V) in the dtype of `hidden`.

    Rows whose target is `IGNORED` have no loss and no gradient.
    """
    logits = F.linear(hidden, output_weight).float()
    counts = targets != IGNORED
    index = targets.where(counts, 0)[:, None]
    normalizer = logits.logsumexp(-1, keepdim=True)
    losses = (normalizer - logits.gather(1, index))[:, 0]
    is_target = torch.arange(logits.shape[1], device=logits.device) == index
    gradient = (logits - normalizer).exp() - is_target.float()
    return losses.where(counts, 0.0).sum(), gradient.where(counts[:, None], 0.0).to(hidden.dtype)


def sum_losses_in_chunks(
    hidden: Tensor, output_weight: Tensor, targets: Tensor, num_tokens: int, chunk_loss: ChunkLoss = loss_and_gradient
) -> Tensor:
    """As `loss.sum_losses`, in chunks of `num_tokens` tokens; `chunk_loss` is `loss_and_gradient`, compiled or not."""
    needs = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (hidden, output_weight)]
    rows = hidden.flatten(0, 1), output_weight, targets.flatten()
    total: Tensor = _ChunkedLoss.apply(*rows, num_tokens, chunk_loss, *needs)  # type: ignore[no-untyped-call]
    return total


class _ChunkedLoss(torch.autograd.Function):
    """The summed loss as a node of autograd; its gradients exist before the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        output_weight: Tensor,
        targets: Tensor,
        num_tokens: int,
        chunk_loss: ChunkLoss,
        needs_hidden: bool,
        needs_weight: bool,
    ) -> Tensor:
        """The loss of `targets` (N,) given `hidden` (N, D), scalar float32."""
        total = torch.zeros((), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        # In 16 bits, a sum over many chunks would lose the small ones.
        grad_weight = torch.zeros_like(output_weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, len(hidden), num_tokens):
            rows = slice(start, start + num_tokens)
            if grad_hidden is None and grad_weight is None:
                logits = F.linear(hidden[rows], output_weight).float()
                total += F.cross_entropy(logits, targets[rows], ignore_index=IGNORED, reduction="sum")
                continue
            loss, gradient = chunk_loss(hidden[rows], output_weight, targets[rows])
            total += loss
            if grad_hidden is not None:
                torch.mm(gradient, output_weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight += gradient.T @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = output_weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of hidden states and weight, for the scalar `grad_out`."""
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad_out
        if grad_weight is not None:
            grad_weight = (grad_weight * grad_out).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None, None
