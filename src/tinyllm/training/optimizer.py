"""The optimizer: AdamW with decay on matrices alone, and its state as named tensors.

It builds and converts; what a step does with it stands in `step.py`, the rate in `schedule.py`.
"""

import torch
from torch import Tensor, nn

from tinyllm.config import OptimizerConfig
from tinyllm.errors import MismatchError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused. Norm gains are not decayed: they have no scale to shrink towards."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next update, for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state under names such as `model.norm.weight.exp_avg`; empty before the first update."""
    return {
        f"{name}.{moment}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave. Raises MismatchError if a name or shape belongs to another model."""
    if not tensors:
        return
    expected = {f"{name}.{moment}" for name, _ in model.named_parameters() for moment in MOMENTS}
    if expected != set(tensors):
        odd = sorted(expected ^ set(tensors))
        raise MismatchError(f"the optimizer state belongs to another model; the first name that differs is {odd[0]}")
    for name, parameter in model.named_parameters():
        state = {moment: tensors[f"{name}.{moment}"] for moment in MOMENTS}
        if state["exp_avg"].shape != parameter.shape:
            raise MismatchError(
                f"the optimizer state of {name} has shape {tuple(state['exp_avg'].shape)}, "
                f"the model's is {tuple(parameter.shape)}; it belongs to another model"
            )
        optimizer.state[parameter] = {key: tensor.to(parameter.device) for key, tensor in state.items()}
