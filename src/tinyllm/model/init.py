"""Weights before the first step.

By default: normal with standard deviation 0.02, residual projections narrower (GPT-2). Each layer adds two terms to the
residual stream, so the projections that write them start smaller by 1/sqrt(2 x layers): the stream's variance then does
not grow with depth. Gains start at one.

`initialize_mimetic` goes on from there: attention that already copies, as trained attention does. A small model meets
too few tokens to find by itself that what was said before comes again, and this gives it the circuit to sharpen.

Shapes: D model size, K key/value heads, C channels of one head.
"""

import math

import torch
from torch import Tensor, nn

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


@torch.no_grad()
def initialize_mimetic(model: nn.Module, num_groups: int) -> None:
    """After `initialize`: each head attends to tokens like its own, and writes what it reads (Trockman & Kolter 2023).

    Keys and queries are the same random orthonormal projection, and the output projection is the transpose of the
    values'; `num_groups` query heads share one key/value head. Rows of the embedding get a length of about sqrt(2):
    starting at 0.02 a number, names of one kind were found to end up nearly alike, which leaves a copy little to tell.
    """
    for name, module in model.named_modules():
        if name.endswith("embed_tokens"):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight.shape[1]))
        if name.endswith("self_attn"):
            nn.init.orthogonal_(module.k_proj.weight)
            nn.init.orthogonal_(module.v_proj.weight)
            module.q_proj.weight.copy_(_repeat_heads(module.k_proj.weight, module.head_size, num_groups))
            written = _repeat_heads(module.v_proj.weight, module.head_size, num_groups)
            module.o_proj.weight.copy_(written.T / num_groups)


def _repeat_heads(rows: Tensor, head_size: int, times: int) -> Tensor:
    """`rows` (K x C, D) with each head's C rows `times` times in a row."""
    return rows.view(-1, head_size, rows.shape[1]).repeat_interleave(times, dim=0).flatten(0, 1)
