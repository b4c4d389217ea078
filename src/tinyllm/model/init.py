"""Weights before the first step: normal with standard deviation 0.02, residual projections narrower (GPT-2).

Each layer adds two terms to the residual stream, so the projections that write them start smaller by
1/sqrt(2 x layers): the stream's variance then does not grow with depth. Gains start at one.
"""

import math

import torch
from torch import nn

STANDARD_DEVIATION = 0.02
RESIDUAL_PROJECTIONS = ("o_proj.weight", "down_proj.weight")


def initial_deviation(name: str, num_layers: int) -> float:
    """Standard deviation of the initial values of the matrix called `name`."""
    if name.endswith(RESIDUAL_PROJECTIONS):
        return STANDARD_DEVIATION / math.sqrt(2 * num_layers)
    return STANDARD_DEVIATION


@torch.no_grad()
def initialize(model: nn.Module, num_layers: int) -> None:
    """Sets every parameter of `model` in place, from torch's global generator: the same seed, the same weights."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=initial_deviation(name, num_layers))
