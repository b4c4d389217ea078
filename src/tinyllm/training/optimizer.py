"""Builds the optimizers, and converts their state to and from named tensors.

AdamW updates every parameter that trains, or Muon the hidden matrices and AdamW the rest. The update is in `step.py`,
the learning rate in `schedule.py`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tinyllm.config import OptimizerConfig
from tinyllm.errors import MismatchError
from tinyllm.training.muon import Muon
from tinyllm.training.sharding import slice_like


def build_optimizers(model: nn.Module, config: OptimizerConfig, dtype: torch.dtype = torch.float32) -> list[Optimizer]:
    """The optimizers of `config.name`, each with its share of the parameters that require a gradient.

    `dtype` is the precision of Muon's products.
    """
    trained = _trained_parameters(model)
    hidden = [p for name, p in trained.items() if config.name == "muon" and _is_hidden_matrix(name, p)]
    taken = {id(p) for p in hidden}
    optimizers: list[Optimizer] = [_build_adamw([p for p in trained.values() if id(p) not in taken], config)]
    if hidden:
        optimizers.append(Muon(hidden, lr=0.0, momentum=config.momentum, weight_decay=config.weight_decay, dtype=dtype))
    return optimizers


def _build_adamw(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov & Hutter 2019); matrices are decayed, norm gains are not."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def _trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, for those that require a gradient."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    # The embedding and the output projection hold one row a token; orthogonalizing them would couple the rows.
    return parameter.dim() == 2 and "embed_tokens" not in name and "lm_head" not in name


def set_learning_rate(optimizers: Sequence[Optimizer], rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def optimizer_tensors(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' state under names such as `model.norm.weight.exp_avg`; empty before the first update."""
    return {
        f"{name}.{key}": optimizer.state[parameter][key]
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        if parameter in optimizer.state
        for key in _state_keys(optimizer)
    }


def load_optimizer_tensors(model: nn.Module, optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Restores the state that `optimizer_tensors` returned. Raises MismatchError if a name or shape differs."""
    if not tensors:
        return
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    trained = _trained_parameters(model)
    expected = {f"{name}.{key}" for name, p in trained.items() for key in _state_keys(owners[p])}
    if expected != set(tensors):
        odd = sorted(expected ^ set(tensors))
        raise MismatchError(
            f"the optimizer state belongs to another model or optimizer; the first name that differs is {odd[0]}"
        )
    for name, parameter in trained.items():
        state = {key: tensors[f"{name}.{key}"] for key in _state_keys(owners[parameter])}
        for key, tensor in state.items():
            if key != "step" and tensor.shape != parameter.shape:
                raise MismatchError(
                    f"the optimizer state of {name} has shape {tuple(tensor.shape)}, "
                    f"the model's is {tuple(parameter.shape)}; it belongs to another model"
                )
        owners[parameter].state[parameter] = {
            key: tensor.to(parameter.device) if key == "step" else slice_like(tensor, parameter)
            for key, tensor in state.items()
        }


def _state_keys(optimizer: Optimizer) -> tuple[str, ...]:
    return ("momentum_buffer",) if isinstance(optimizer, Muon) else ("exp_avg", "exp_avg_sq", "step")
