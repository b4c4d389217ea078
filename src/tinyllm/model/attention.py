"""Causal self-attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023), rotary positions, no biases.

Shapes: B batch, T time, D model size, H query heads, K key/value heads, S positions so far, C channels of one head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyllm.config import ModelConfig
from tinyllm.model.kv_cache import KVCache
from tinyllm.model.rope import rotate


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Each of the last T positions looks at itself and all before it: `query` (B, H, T, C), others (B, K, S, C).

    Gives (B, H, T, C). Groups of H / K query heads share a key/value head. `dropout` drops attention weights.
    """
    num_new, num_all = query.shape[2], key.shape[2]
    grouped = query.shape[1] != key.shape[1]
    mask = None
    if 1 < num_new < num_all:
        # `is_causal` lines up the first query with the first key, which is right only when nothing came before.
        mask = torch.ones(num_new, num_all, dtype=torch.bool, device=query.device).tril(num_all - num_new)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=num_new == num_all > 1, enable_gqa=grouped
    )


class Attention(nn.Module):
    """One layer's attention; `layer` is its place in the cache."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_size = config.head_size
        self.dropout = config.dropout
        self.q_proj = nn.Linear(config.hidden_size, config.num_heads * config.head_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_size, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None = None) -> Tensor:
        """`x` (B, T, D) at the positions of `cos`, `sin` (T, C/2), after what `cache` holds: (B, T, D)."""
        query = rotate(self._split_heads(self.q_proj(x)), cos, sin)
        key = rotate(self._split_heads(self.k_proj(x)), cos, sin)
        value = self._split_heads(self.v_proj(x))
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        heads = attend(query, key, value, self.dropout if self.training else 0.0)
        written: Tensor = self.o_proj(heads.transpose(1, 2).flatten(2))
        return written

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, T, heads x C) to (B, heads, T, C)."""
        return x.view(*x.shape[:2], -1, self.head_size).transpose(1, 2)
