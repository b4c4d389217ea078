"""Muon (Jordan et al. 2024): momentum, made orthogonal by Newton-Schulz iterations, for the matrices of hidden layers.

An update of every matrix moves all its directions by the same amount, where Adam moves mostly along the few strongest.
The same as `torch.optim.Muon`, except that matrices of one shape go through the iterations together, as one batch: a
small model has dozens of small matrices, and one by one they cost more in calls than in arithmetic.

Shapes: N matrices of one shape, R rows, C columns.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients that grow small singular values fastest and leave all near 1 (Jordan et al. 2024)."""
NUM_ITERATIONS = 5
ADAM_RMS = 0.2
"""Root mean square of Adam's updates in practice; scaled to it, Muon takes Adam's learning rate (Liu et al. 2025)."""


class Muon(torch.optim.Optimizer):
    """For matrices alone; embeddings, the output projection and gains belong to AdamW."""

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """`dtype` is that of the iterations; they forgive rounding, so bfloat16 will do where it is fast."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        assert closure is None, "Muon looks at one gradient only"
        for group in self.param_groups:
            for matrices in group_by_shape(p for p in group["params"] if p.grad is not None):
                self._update(matrices, group)

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in matrices if p.grad is not None]
        means = [self._mean(p) for p in matrices]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])  # Nesterov: where the mean is going
        directions = orthogonalize(torch.stack(ahead).to(self.dtype)).float()
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        scale = ADAM_RMS * math.sqrt(max(matrices[0].shape))
        torch._foreach_add_(matrices, list(directions.unbind()), alpha=-group["lr"] * scale)

    def _mean(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean: Tensor = state["momentum_buffer"]
        return mean


def orthogonalize(matrices: Tensor, num_iterations: int = NUM_ITERATIONS) -> Tensor:
    """`matrices` (N, R, C) with their singular values moved to about 1; same shape and dtype.

    Each iteration applies an odd polynomial to the singular values, by products of matrices alone.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    linear, cubic, quintic = QUINTIC
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x.mT if tall else x


def group_by_shape(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """`tensors` in lists of one shape each, in the order of their first."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.shape, []).append(tensor)
    return list(groups.values())
