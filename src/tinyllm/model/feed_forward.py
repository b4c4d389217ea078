"""The gated feed-forward layer SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x)).

Shapes: B batch, T time, D model size.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from tinyllm.config import ModelConfig


class FeedForward(nn.Module):
    """The feed-forward network of one layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias = config.mlp_bias
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Output (B, T, D) of `x` (B, T, D); positions are independent."""
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output
