"""Root mean square normalization (Zhang & Sennrich 2019): y = g * x / sqrt(mean(x^2) + eps), no bias.

Shapes: D channels.
"""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Divides each vector by its root mean square, then multiplies by a learned gain."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`x` (..., D) normalized over its last axis; dtype of `x`, or of the gain if that is wider."""
        # The mean of squares runs in float32: in bfloat16 a sum of 288 terms drops the last ones.
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)
