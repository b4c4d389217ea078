"""Muon (Jordan et al. 2024): momentum orthogonalized by Newton-Schulz iterations, for the matrices of hidden layers.

    M <- momentum * M + (1 - momentum) * G
    W <- (1 - lr * weight_decay) * W - lr * scale * orthogonalize((1 - momentum) * G + momentum * M)

All singular values of an update are about equal; Adam's updates are dominated by a few. Same as `torch.optim.Muon`,
except that matrices of one shape are iterated as one batch: for dozens of small matrices, calls cost more than
arithmetic.

Shapes: N matrices of one shape, R rows, C columns.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd polynomial that moves singular values to about 1 fastest (Jordan et al. 2024)."""
NUM_ITERATIONS = 5
ADAM_RMS = 0.2
"""Typical root mean square of Adam's updates; scaled to it, Muon uses Adam's learning rate (Liu et al. 2025)."""


class Muon(torch.optim.Optimizer):
    """The optimizer of the hidden matrices; embeddings, the output projection and gains belong to AdamW."""

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """Runs the iterations in `dtype`; they tolerate rounding, so bfloat16 is enough."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient."""
        assert closure is None, "Muon takes no closure: it evaluates the gradient once"
        for group in self.param_groups:
            for matrices in group_by_shape(p for p in group["params"] if p.grad is not None):
                self._update(matrices, group)

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in matrices if p.grad is not None]
        means = [self._mean(p) for p in matrices]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])  # Nesterov momentum
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
    """`matrices` (N, R, C) with all singular values at about 1; same shape and dtype.

    Iteration: X <- a X + b (X X^T) X + c (X X^T)^2 X with (a, b, c) = QUINTIC.
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
    """`tensors` grouped by shape; groups in the order of their first tensor."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.shape, []).append(tensor)
    return list(groups.values())
