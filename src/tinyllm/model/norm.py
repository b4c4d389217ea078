"""Root mean square normalization (Zhang & Sennrich 2019): scale without centring, one gain a channel, no bias.

Shapes: D channels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tinyllm.model.kernels import operators


class RMSNorm(nn.Module):
    """Divides each vector by its root mean square, then multiplies by a learned gain."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.by_kernel = False

    def forward(self, x: Tensor) -> Tensor:
        """`x` (..., D) normalized over its last axis; dtype of `x`, or of the gain where that is wider."""
        if self.by_kernel:
            by_kernel: Tensor = _NormByKernel.apply(x.contiguous(), self.weight, self.eps)  # type: ignore[no-untyped-call]
            return by_kernel
        # Squares are summed in float32: in bfloat16 a sum of 288 terms loses the last ones.
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class _NormByKernel(torch.autograd.Function):
    """The same for bfloat16 on processors with AMX, in one pass each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, inverses = operators.rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, inverses)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverses = ctx.saved_tensors
        return *operators.rms_norm_backward(x, weight, inverses, gradient.contiguous()), None
