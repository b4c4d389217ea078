"""Causal self-attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023) and rotary positions.

Two functions compute softmax(Q K^T / sqrt(C)) V with a causal mask; the choice affects speed alone:

    attend_fused     PyTorch's kernel; stores no T x S matrix; for GPUs and long texts
    attend_explicit  two matrix products and a softmax; faster for training small heads on a CPU

`attend_masked` serves cached texts of different lengths. A third implementation, for training on CPUs with AMX, is in
`kernels/train/kernel_pass.py`.

Shapes: B batch, T time, D model size, H query heads, K key/value heads, S positions including cached ones,
C channels of one head.
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
    """Causal attention (B, H, T, C) of `query` (B, H, T, C), the last T of S positions, to `key`, `value` (B, K, S, C).

    Groups of H / K query heads share one key/value head. `dropout` is the probability of dropping an attention weight.
    """
    num_new, num_all = query.shape[2], key.shape[2]
    grouped = query.shape[1] != key.shape[1]
    mask = None
    if 1 < num_new < num_all:
        # `is_causal` aligns the first query with the first key: wrong when earlier keys are cached.
        mask = torch.ones(num_new, num_all, dtype=torch.bool, device=query.device).tril(num_all - num_new)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=num_new == num_all > 1, enable_gqa=grouped
    )


def attend_masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """As `attend_fused` without dropout, to the keys that are true in `mask` (B, 1, T, S)."""
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.shape[2] == 1:
        # The query heads of a group become rows, so that kernels which know no groups need no copies of the keys.
        rows = query.view(len(query), key.shape[1], -1, query.shape[3])
        return F.scaled_dot_product_attention(rows, key, value, attn_mask=mask).view(query.shape)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)


def attend_explicit(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Same result as `attend_fused`, by two matrix products and a softmax for each block of `QUERY_BLOCK` queries.

    A block reads keys up to its own end only: with many blocks nearly half of the scores are never computed.
    """
    num_new, before = query.shape[2], key.shape[2] - query.shape[2]
    sizes = [min(QUERY_BLOCK, num_new - start) for start in range(0, num_new, QUERY_BLOCK)]
    # Keys are split once and prefixes concatenated: the gradient of a concatenation is a split. The gradient of
    # overlapping slices would be one zero-padded array (B, K, S, C) for each block, all of them summed.
    key_sizes = [before + sizes[0], *sizes[1:]]
    keys, values = torch.split(key, key_sizes, dim=2), torch.split(value, key_sizes, dim=2)
    key_positions = positions(key.shape[2], key.device)
    blocks = [
        _attend_block(block, torch.cat(keys[:index], dim=2), torch.cat(values[:index], dim=2), key_positions, dropout)
        for index, block in enumerate(torch.split(query, sizes, dim=2), start=1)
    ]
    return torch.cat(blocks, dim=2)


def _attend_block(query: Tensor, key: Tensor, value: Tensor, key_positions: Tensor, dropout: float) -> Tensor:
    """Attention (B, H, T, C) of one block; the query heads of a group are stacked as rows of one matrix product."""
    batch, num_heads, num_new, channels = query.shape
    num_kv_heads, num_all = key.shape[1:3]
    query = query.reshape(batch * num_kv_heads, -1, channels)
    key, value = key.reshape(-1, num_all, channels), value.reshape(-1, num_all, channels)
    heads: Tensor = _SoftmaxAttention.apply(query, key, value, num_new, key_positions[:num_all], dropout)  # type: ignore[no-untyped-call]
    return heads.view(batch, num_heads, num_new, channels)


class _SoftmaxAttention(torch.autograd.Function):
    """O = P V with P = softmax(Q K^T / sqrt(C)), and the gradient of FlashAttention (Dao et al. 2022), algorithm 4.

        dP = dO V^T
        dS = P * (dP - rowsum(dO * O))     rowsum(dP * P) = rowsum(dO * O), so P needs no second softmax
        dQ = dS K / sqrt(C),   dK = dS^T Q / sqrt(C),   dV = P^T dO

    Shapes: N products, R query rows of a product (heads of a group x new positions), S positions, C channels.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, num_new: int, key_positions: Tensor, dropout: float
    ) -> Tensor:
        """Output (N, R, C) of `query` (N, R, C) and `key`, `value` (N, S, C).

        Row r of a product is position S - num_new + r % num_new.
        """
        num_all = key.shape[1]
        # The softmax runs in float32 for any dtype of the products: each row must sum to 1.
        scores = torch.bmm(query, key.transpose(1, 2)).view(-1, num_all).float() * query.shape[2] ** -0.5
        if num_new > 1:
            query_positions = torch.arange(len(scores), device=query.device) % num_new + (num_all - num_new)
            masked = key_positions > query_positions.float()[:, None]
            scores = scores.masked_fill(masked, float("-inf"))
        weights = scores.softmax(-1).to(value.dtype).view(len(query), -1, num_all)
        drop_mask = F.dropout(torch.ones_like(weights), dropout) if dropout else None
        output = torch.bmm(weights if drop_mask is None else weights * drop_mask, value)
        ctx.save_for_backward(query, key, value, weights, output, drop_mask)
        return output

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value for `grad_out` (N, R, C); the formulas are in the class docstring."""
        query, key, value, weights, output, drop_mask = ctx.saved_tensors
        grad_weights = torch.bmm(grad_out, value.transpose(1, 2))
        dropped = weights
        if drop_mask is not None:
            grad_weights, dropped = grad_weights * drop_mask, weights * drop_mask
        row_sums = (grad_out.float() * output.float()).sum(-1, keepdim=True)
        grad_scores = weights.float() * (grad_weights.float() - row_sums) * query.shape[2] ** -0.5
        grad_scores = grad_scores.to(query.dtype)
        grad_query, grad_key = torch.bmm(grad_scores, key), torch.bmm(grad_scores.transpose(1, 2), query)
        grad_value = torch.bmm(dropped.transpose(1, 2), grad_out)
        return grad_query, grad_key, grad_value, None, None, None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def positions(num_positions: int, device: torch.device) -> Tensor:
    """0, 1, 2 ... as float32 (S), a constant for torch.compile: twice as fast as an arange inside compiled code."""
    return torch.arange(num_positions, dtype=torch.float32, device=device)


ATTENTION = {"fused": attend_fused, "explicit": attend_explicit}


class Attention(nn.Module):
    """The attention of one layer; `layer` is its index in the cache."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_size = config.head_size
        self.dropout = config.dropout
        self.kind: AttentionKind = "fused"
        bias, keys = config.attention_bias, config.num_kv_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.attention_size, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=bias)
        self.o_proj = nn.Linear(config.attention_size, config.hidden_size, bias=bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None = None) -> Tensor:
        """Attention output (B, T, D) of `x` (B, T, D), rotated by `cos`, `sin`; appends to `cache`.

        The tables are (T, C/2), or (B, 1, T, C/2) for rows at different positions.
        """
        query = rotate(self._split_heads(self.q_proj(x)), cos, sin)
        key = rotate(self._split_heads(self.k_proj(x)), cos, sin)
        value = self._split_heads(self.v_proj(x))
        mask = None
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
            mask = cache.mask(x.shape[1])
        if mask is not None:
            heads = attend_masked(query, key, value, mask)
        else:
            heads = ATTENTION[self.kind](query, key, value, self.dropout if self.training else 0.0)
        output: Tensor = self.o_proj(heads.transpose(1, 2).flatten(2))
        return output

    def weights(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The attention weights (B, H, T, T) of `x` (B, T, D), query then key, float32; rows sum to 1.

        For looking at them: `forward` computes the same without keeping them.
        """
        query = rotate(self._split_heads(self.q_proj(x)), cos, sin)
        key = rotate(self._split_heads(self.k_proj(x)), cos, sin)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = (query @ key.transpose(2, 3)).float() * self.head_size**-0.5
        future = torch.ones(scores.shape[2:], dtype=torch.bool, device=x.device).triu(1)
        weights: Tensor = scores.masked_fill(future, float("-inf")).softmax(-1)
        return weights

    def _split_heads(self, x: Tensor) -> Tensor:
        """Reshapes (B, T, heads x C) to (B, heads, T, C)."""
        return x.view(*x.shape[:2], -1, self.head_size).transpose(1, 2)
