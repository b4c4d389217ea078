"""A linear layer without bias: PyTorch's, or with a kernel of our own for the gradient of its weight.

Shapes: I numbers go in, O come out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tinyllm.model.kernels import operators


class Linear(nn.Linear):
    """`nn.Linear` without bias."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, num_out, bias=False)
        self.by_kernel = False

    def forward(self, x: Tensor) -> Tensor:
        """`x` (..., I) to (..., O)."""
        return linear_by_kernel(x, self.weight) if self.by_kernel else F.linear(x, self.weight)


def linear_by_kernel(x: Tensor, weight: Tensor) -> Tensor:
    """`x` (..., I) by `weight` (O, I) for bfloat16 on processors with AMX: (..., O)."""
    product: Tensor = _LinearByKernel.apply(x, weight)  # type: ignore[no-untyped-call]
    return product


class _LinearByKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        of_x = (rows @ weight).view(x.shape)
        return of_x, operators.weight_gradient(rows, x.reshape(-1, x.shape[-1]).contiguous())
