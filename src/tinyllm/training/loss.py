"""The loss: cross entropy of the next tokens, summed, by PyTorch or by a kernel of our own.

Shapes: B windows, T tokens a window predicts, D model size, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinyllm.model.kernels import operators
from tinyllm.model.linear import linear_by_kernel
from tinyllm.model.transformer import Transformer


def summed_loss(model: Transformer, tokens: Tensor) -> Tensor:
    """Cross entropy of each window's next tokens, summed: `tokens` (B, T + 1) int64 -> scalar float32, in nats."""
    return sum_losses(model.hidden_states(tokens[:, :-1]), model.output_weight, tokens[:, 1:])


def sum_losses(hidden: Tensor, output_weight: Tensor, targets: Tensor) -> Tensor:
    """The same from hidden states (B, T, D) on, for `targets` (B, T); logits are made in the model's precision."""
    logits = F.linear(hidden, output_weight)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")


def sum_losses_by_kernel(hidden: Tensor, output_weight: Tensor, targets: Tensor) -> Tensor:
    """The same for bfloat16 on processors with AMX: no logits in float32 are ever in memory."""
    logits = linear_by_kernel(hidden, output_weight)
    total: Tensor = _SummedCrossEntropy.apply(logits.flatten(0, 1), targets.flatten().contiguous())  # type: ignore[no-untyped-call]
    return total


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        losses, logs = operators.cross_entropy(logits, targets)
        ctx.save_for_backward(logits, targets, logs)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, targets, logs = ctx.saved_tensors
        return operators.cross_entropy_backward(logits, targets, logs, gradient), None
