"""Causal self-attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023), rotary positions, no biases.

The mathematics stands here twice: `attend_fused` hands it to PyTorch's kernel, which keeps no T x S matrix and is right
on a GPU and for long texts; `attend_explicit` writes it out as two products and a softmax, which on a CPU trains faster
at the small heads of small models. Which one a model uses is a matter of speed alone.

Shapes: B batch, T time, D model size, H query heads, K key/value heads, S positions so far, C channels of one head.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyllm.config import ModelConfig
from tinyllm.model.kv_cache import KVCache
from tinyllm.model.rope import rotate

AttentionKind = Literal["fused", "explicit"]
QUERY_BLOCK = 128


def attend_fused(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
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


def attend_explicit(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """The same as `attend_fused`, written out, one block of queries after another.

    A block does not look past its own end: with many blocks nearly half of the scores are never computed.
    """
    num_new, num_all = query.shape[2], key.shape[2]
    before = num_all - num_new
    blocks = []
    for start in range(0, num_new, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, num_new)
        seen = before + end
        blocks.append(_attend_block(query[:, :, start:end], key[:, :, :seen], value[:, :, :seen], dropout))
    return torch.cat(blocks, dim=2)


def _attend_block(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Two products and a softmax; the query heads of a group lie under each other, so that they share one product."""
    batch, num_heads, num_new, channels = query.shape
    num_kv_heads, num_all = key.shape[1:3]
    query = query.reshape(batch * num_kv_heads, -1, channels)
    key, value = key.reshape(-1, num_all, channels), value.reshape(-1, num_all, channels)
    # The softmax runs in float32 whatever the products': a row of probabilities must sum to one.
    scores = torch.bmm(query, key.transpose(1, 2)).float() * channels**-0.5
    scores = scores.view(batch, num_heads, num_new, num_all)
    if num_new > 1:
        past = torch.ones(num_new, num_all, dtype=torch.bool, device=query.device).tril(num_all - num_new)
        scores = scores.masked_fill(~past, float("-inf"))
    weights = F.dropout(scores.softmax(-1).to(value.dtype), dropout)
    return torch.bmm(weights.view(batch * num_kv_heads, -1, num_all), value).view(batch, num_heads, num_new, channels)


ATTENTION = {"fused": attend_fused, "explicit": attend_explicit}


class Attention(nn.Module):
    """One layer's attention; `layer` is its place in the cache."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_size = config.head_size
        self.dropout = config.dropout
        self.kind: AttentionKind = "fused"
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
        heads = ATTENTION[self.kind](query, key, value, self.dropout if self.training else 0.0)
        written: Tensor = self.o_proj(heads.transpose(1, 2).flatten(2))
        return written

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, T, heads x C) to (B, heads, T, C)."""
        return x.view(*x.shape[:2], -1, self.head_size).transpose(1, 2)
