"""The key/value cache: with it, each new token costs one position instead of the whole text.

Memory for the whole context is allocated once. The cache does not slide: a caller that fills it calls `reset` and
prefills again.

Shapes: L layers, B batch, K key/value heads, T new positions, S positions including cached ones, D channels of one
head.
"""

import torch
from torch import Tensor

from tinyllm.config import ModelConfig


class KVCache:
    """Keys and values (L, B, K, context, D) each; the first `length` positions are filled."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (config.num_layers, batch_size, config.num_kv_heads, config.context_length, config.head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    @property
    def batch_size(self) -> int:
        """Number of rows generated in parallel, B."""
        return self.keys.shape[1]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends `keys`, `values` (B, K, T, D) of one layer; returns those of all S positions, (B, K, S, D) each.

        A batch of one is written to every row, for a prompt that all rows share. `length` stays the same until
        `advance`, because every layer appends at the same position.
        """
        batch, end = keys.shape[0], self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :batch, :, :end], self.values[layer, :batch, :, :end]

    def advance(self, num_positions: int) -> None:
        """Adds `num_positions` to `length`, after every layer has appended them."""
        self.length += num_positions

    def reset(self) -> None:
        """Empties the cache; its memory stays allocated."""
        self.length = 0
