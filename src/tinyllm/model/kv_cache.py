"""Keys and values of the positions already read, so that the next token costs one position instead of all.

Memory for the whole context is taken once. The cache does not know about windows: when it is full, whoever
generates decides what to keep, resets it, and reads again.

Shapes: L layers, B batch, K key/value heads, T new positions, S positions so far, D channels of one head.
"""

import torch
from torch import Tensor

from tinyllm.config import ModelConfig


class KVCache:
    """Room for `config.context_length` positions of each row; the first `length` are filled."""

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
        """Rows that are generated side by side."""
        return self.keys.shape[1]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes one layer's `keys` and `values` (B, K, T, D) after the first `length`; gives all so far (B, K, S, D).

        A batch of one fills every row: a prompt that all rows share is read once. `length` moves on only with
        `advance`, when the last layer is through.
        """
        batch, end = keys.shape[0], self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :batch, :, :end], self.values[layer, :batch, :, :end]

    def advance(self, num_positions: int) -> None:
        """Counts positions that every layer has written."""
        self.length += num_positions

    def reset(self) -> None:
        """Forgets everything; the memory stays."""
        self.length = 0
