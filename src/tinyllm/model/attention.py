"""Causal self-attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023), rotary positions, no biases.

The mathematics stands here twice: `attend_fused` hands it to PyTorch's kernel, which keeps no T x S matrix and is right
on a GPU and for long texts; `attend_explicit` writes it out as two products and a softmax, which on a CPU trains faster
at the small heads of small models. Which one a model uses is a matter of speed alone. (Training has a third way of its
own, in which nothing of this module runs: `training/kernel_pass.py`.)

Shapes: B batch, T time, D model size, H query heads, K key/value heads, S positions so far, C channels of one head.
"""

from typing import Any, Literal

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
    num_new, before = query.shape[2], key.shape[2] - query.shape[2]
    sizes = [min(QUERY_BLOCK, num_new - start) for start in range(0, num_new, QUERY_BLOCK)]
    # Cut once and joined again, because the gradient of a join is a cut. That of many overlapping cuts would be as many
    # arrays of zeros with something in the middle, all added up.
    seen_sizes = [before + sizes[0], *sizes[1:]]
    keys, values = torch.split(key, seen_sizes, dim=2), torch.split(value, seen_sizes, dim=2)
    numbers = positions(key.shape[2], key.device)
    blocks = [
        _attend_block(block, torch.cat(keys[:index], dim=2), torch.cat(values[:index], dim=2), numbers, dropout)
        for index, block in enumerate(torch.split(query, sizes, dim=2), start=1)
    ]
    return torch.cat(blocks, dim=2)


def _attend_block(query: Tensor, key: Tensor, value: Tensor, numbers: Tensor, dropout: float) -> Tensor:
    """The query heads of a group lie under each other, so that they share one product with their key head."""
    batch, num_heads, num_new, channels = query.shape
    num_kv_heads, num_all = key.shape[1:3]
    query = query.reshape(batch * num_kv_heads, -1, channels)
    key, value = key.reshape(-1, num_all, channels), value.reshape(-1, num_all, channels)
    heads: Tensor = _SoftmaxAttention.apply(query, key, value, num_new, numbers[:num_all], dropout)  # type: ignore[no-untyped-call]
    return heads.view(batch, num_heads, num_new, channels)


class _SoftmaxAttention(torch.autograd.Function):
    """Two products and a causal softmax between them, and its gradient as in FlashAttention (Dao et al. 2022), alg. 4.

    PyTorch's own gradient would compute the softmax once more, and sum its rows. Each row's sum is already there:
    it is the product of the output with the output's gradient.

    Shapes: N products, R query rows of a product (heads of a group times new positions), S positions, C channels.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, num_new: int, numbers: Tensor, dropout: float
    ) -> Tensor:
        """`query` (N, R, C), others (N, S, C) to (N, R, C); rows come in turns of `num_new`, the last positions."""
        num_all = key.shape[1]
        # Rows of all products together, and the softmax in float32 whatever the products': a row must sum to one.
        scores = torch.bmm(query, key.transpose(1, 2)).view(-1, num_all).float() * query.shape[2] ** -0.5
        if num_new > 1:
            last_seen = torch.arange(len(scores), device=query.device) % num_new + (num_all - num_new)
            hidden = numbers > last_seen.float()[:, None]
            scores = scores.masked_fill(hidden, float("-inf"))
        weights = scores.softmax(-1).to(value.dtype).view(len(query), -1, num_all)
        kept = F.dropout(torch.ones_like(weights), dropout) if dropout else None
        output = torch.bmm(weights if kept is None else weights * kept, value)
        ctx.save_for_backward(query, key, value, weights, output, kept)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of a row's scores: weights * (gradient of the weights - gradient of the output * output, summed)."""
        query, key, value, weights, output, kept = ctx.saved_tensors
        of_weights = torch.bmm(gradient, value.transpose(1, 2))
        used = weights
        if kept is not None:
            of_weights, used = of_weights * kept, weights * kept
        row_sums = (gradient.float() * output.float()).sum(-1, keepdim=True)
        of_scores = weights.float() * (of_weights.float() - row_sums) * query.shape[2] ** -0.5
        of_scores = of_scores.to(query.dtype)
        of_query, of_key = torch.bmm(of_scores, key), torch.bmm(of_scores.transpose(1, 2), query)
        return of_query, of_key, torch.bmm(used.transpose(1, 2), gradient), None, None, None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def positions(num_positions: int, device: torch.device) -> Tensor:
    """0, 1, 2 ... as float32 (S). Compiled code reads them from memory, twice as fast as it would count them anew."""
    return torch.arange(num_positions, dtype=torch.float32, device=device)


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
