"""Initial weights.

The default is that of GPT-2: matrices ~ N(0, 0.02^2), residual projections ~ N(0, 0.02^2 / (2 x layers)), gains 1,
biases 0.
Each layer adds two terms to the residual stream; the smaller projections keep the stream's variance independent of
depth.

`initialize_mimetic` replaces the attention weights by ones that copy earlier tokens, as trained attention does. A small
model sees too few tokens to learn from scratch that names and phrases recur.

Shapes: D model size, K key/value heads, C channels of one head.
"""

import math

import torch
from torch import Tensor, nn

STANDARD_DEVIATION = 0.02
RESIDUAL_PROJECTIONS = ("o_proj.weight", "down_proj.weight")


def initial_deviation(name: str, num_layers: int) -> float:
    """Standard deviation of the initial values of the matrix `name`."""
    if name.endswith(RESIDUAL_PROJECTIONS):
        return STANDARD_DEVIATION / math.sqrt(2 * num_layers)
    return STANDARD_DEVIATION


@torch.no_grad()
def initialize(model: nn.Module, num_layers: int) -> None:
    """Sets every parameter of `model` in place, drawn from torch's global generator."""
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 1:
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=initial_deviation(name, num_layers))


@torch.no_grad()
def initialize_mimetic(model: nn.Module, num_groups: int) -> None:
    """Sets embedding and attention weights so that each head copies tokens like its own (Trockman & Kolter 2023).

        W_q = W_k   random orthonormal
        W_o = W_v^T / num_groups,   W_v random orthonormal
        embedding rows ~ N(0, 2 / D), of length about sqrt(2)

    `num_groups` query heads share one key/value head. Call `initialize` first. With a standard deviation of 0.02,
    the embeddings of similar names stay nearly equal after training, and a copying head cannot tell them apart.

    With tied embeddings, training begins far above ln(vocabulary size): the logit of the last token is about sqrt(2 D).
    """
    for name, module in model.named_modules():
        if name.endswith("embed_tokens"):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight.shape[1]))
        if name.endswith("self_attn"):
            nn.init.orthogonal_(module.k_proj.weight)
            nn.init.orthogonal_(module.v_proj.weight)
            module.q_proj.weight.copy_(_repeat_heads(module.k_proj.weight, module.head_size, num_groups))
            values = _repeat_heads(module.v_proj.weight, module.head_size, num_groups)
            module.o_proj.weight.copy_(values.T / num_groups)


def _repeat_heads(rows: Tensor, head_size: int, times: int) -> Tensor:
    """`rows` (K x C, D) with the C rows of each head repeated `times` times: (K x times x C, D)."""
    return rows.view(-1, head_size, rows.shape[1]).repeat_interleave(times, dim=0).flatten(0, 1)
