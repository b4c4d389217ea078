"""The part of a model that trains: every parameter, or those that a predicate chooses by name.

A frozen parameter gets no gradient, no moments, and no entry in a checkpoint's optimizer file.
"""

from collections.abc import Callable

from torch import nn

Trains = Callable[[str], bool]
"""Whether the parameter of this name trains."""


def train_only(model: nn.Module, trains: Trains) -> None:
    """Freezes every parameter whose name `trains` rejects. Raises ValueError if no parameter is left."""
    names = {name for name, _ in model.named_parameters() if trains(name)}
    if not names:
        raise ValueError("no parameter would train; choose at least one name of model.named_parameters()")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def frozen_names(model: nn.Module) -> list[str]:
    """The names of the frozen parameters, in the model's order."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
