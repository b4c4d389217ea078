"""The gated feed-forward layer SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x)), no biases.

Shapes: B batch, T time, D model size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tinyllm.config import ModelConfig
from tinyllm.model.kernels import operators
from tinyllm.model.linear import Linear


def gate_by_kernel(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up in one pass each way, by a kernel of our own, for bfloat16 on processors with AMX."""
    product: Tensor = _SwiGLU.apply(gate.contiguous(), up.contiguous())  # type: ignore[no-untyped-call]
    return product


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return operators.swiglu(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        gate, up = ctx.saved_tensors
        return operators.swiglu_backward(gate, up, gradient.contiguous())


class FeedForward(nn.Module):
    """One layer's feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.by_kernel = False
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, T, D), each position by itself: (B, T, D)."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        written: Tensor = self.down_proj(gate_by_kernel(gate, up) if self.by_kernel else F.silu(gate) * up)
        return written
