"""The functions of `tinyllm.kernels.train.operators` in plain PyTorch: same names, arguments, results and formulas.

Sums run in float32, or in float64 for float64 inputs; results have the dtype of the inputs.

Shapes: B batch, T time, H query heads, K key/value heads, C channels of one head, D model size, F feed-forward size,
N tokens, V vocabulary; I inputs and O outputs of a linear layer.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.kernels.train.operators import IGNORED
from tinyllm.model.rope import rotate

LOG2_E = math.log2(math.e)


def attention(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """softmax(S) V (B, T, H, C) with S = rotate(Q) rotate(K)^T / sqrt(C), causal; and log2(sum_k e^S) (B, H, T)."""
    query, key, value = rotated_heads(qkv, cos, sin, num_heads)
    scores = causal_scores(query, key)
    output = torch.softmax(scores, dim=-1) @ value
    return output.transpose(1, 2).contiguous().to(qkv.dtype), scores.logsumexp(-1) * LOG2_E


def attention_backward(
    qkv: Tensor, cos: Tensor, sin: Tensor, output: Tensor, log_sums: Tensor, grad_out: Tensor
) -> Tensor:
    """dQ, dK, dV (B, T, H + 2K, C): P = 2^(S log2(e) - log_sums), dS = P * (dO V^T - rowsum(dO * O)) / sqrt(C)."""
    num_heads, channels = output.shape[2:]
    query, key, value = rotated_heads(qkv, cos, sin, num_heads)
    grad_heads, heads = (widen(x).transpose(1, 2) for x in (grad_out, output))
    weights = torch.exp2(causal_scores(query, key) * LOG2_E - log_sums[..., None])
    row_sums = (grad_heads * heads).sum(-1, keepdim=True)
    grad_scores = weights * (grad_heads @ value.mT - row_sums) / math.sqrt(channels)
    grad_query = rotate(grad_scores @ key, cos, -sin)
    grad_key = rotate(sum_groups(grad_scores.mT @ query, qkv.shape[2] - num_heads), cos, -sin)
    grad_value = sum_groups(weights.mT @ grad_heads, qkv.shape[2] - num_heads)
    return torch.cat((grad_query, grad_key, grad_value), dim=1).transpose(1, 2).contiguous().to(qkv.dtype)


def weight_gradient(grad_out: Tensor, x: Tensor, grad_weight: Tensor, *, accumulate: bool) -> None:
    """dW = dY^T X (O, I), set or added."""
    set_or_add(grad_weight, widen(grad_out).t() @ widen(x), accumulate=accumulate)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x r g (..., D) and r = 1 / sqrt(mean(x^2) + eps) (N)."""
    inverse_rms = torch.rsqrt(widen(x).square().mean(-1, keepdim=True) + eps)
    return (widen(x) * inverse_rms * gain).to(x.dtype), inverse_rms.flatten()


def rms_norm_backward(
    x: Tensor,
    gain: Tensor,
    inverse_rms: Tensor,
    grad_normed: Tensor,
    grad_residual: Tensor | None,
    grad_gain: Tensor,
    *,
    accumulate: bool,
) -> Tensor:
    """dx = r (g dy - x r^2 mean(x g dy)) + grad_residual (..., D); dg = sum over tokens of dy x r (D), set or added."""
    wide, grad, r = widen(x), widen(grad_normed), inverse_rms.view(*x.shape[:-1], 1)
    set_or_add(grad_gain, (grad * wide * r).flatten(0, -2).sum(0), accumulate=accumulate)
    scaled = grad * gain
    grad_x = r * (scaled - wide * r.square() * (wide * scaled).mean(-1, keepdim=True))
    return (grad_x if grad_residual is None else grad_x + grad_residual).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (N, F)."""
    return (F.silu(widen(gate)) * up).to(gate.dtype)


def swiglu_backward(gate: Tensor, up: Tensor, grad_product: Tensor) -> tuple[Tensor, Tensor]:
    """[d up s (1 + gate (1 - s)), d gate s] (N, 2F) with s = sigmoid(gate); and the product (N, F)."""
    wide, grad = widen(gate), widen(grad_product)
    s = torch.sigmoid(wide)
    grad_gate_up = torch.cat((grad * up * s * (1 + wide * (1 - s)), grad * wide * s), dim=1)
    return grad_gate_up.to(gate.dtype), swiglu(gate, up)


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """-log softmax(z)_target in nats (N), 0 for an ignored target; and log2(sum_v e^z_v) (N)."""
    wide = widen(logits)
    return F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="none"), wide.logsumexp(-1) * LOG2_E


def cross_entropy_backward(logits: Tensor, targets: Tensor, log_sums: Tensor, grad_loss: Tensor) -> Tensor:
    """(softmax(z) - onehot(target)) * grad_loss (N, V), with softmax(z) = 2^(z log2(e) - log_sum); 0 if ignored."""
    softmax, counts = torch.exp2(widen(logits) * LOG2_E - log_sums[:, None]), (targets != IGNORED)[:, None]
    grad_logits = (softmax - F.one_hot(targets.clamp(min=0), logits.shape[1])) * grad_loss
    return torch.where(counts, grad_logits, 0).to(logits.dtype)


def widen(x: Tensor) -> Tensor:
    """`x` in float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def set_or_add(target: Tensor, value: Tensor, *, accumulate: bool) -> None:
    """Sets `target` to `value`, or adds it."""
    target.copy_(target + value if accumulate else value)


def rotated_heads(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> list[Tensor]:
    """Query, key and value (B, H, T, C); the first two are rotated, and K heads are repeated to H."""
    num_kv_heads = (qkv.shape[2] - num_heads) // 2
    query, key, value = torch.split(widen(qkv).transpose(1, 2), [num_heads, num_kv_heads, num_kv_heads], dim=1)
    group = num_heads // num_kv_heads
    key, value = (x.repeat_interleave(group, dim=1) for x in (rotate(key, cos, sin), value))
    return [rotate(query, cos, sin), key, value]


def causal_scores(query: Tensor, key: Tensor) -> Tensor:
    """Q K^T / sqrt(C) (B, H, T, T), -inf where the key is later than the query."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf)


def sum_groups(x: Tensor, num_key_and_value_heads: int) -> Tensor:
    """(B, H, T, C) summed over each group of query heads: (B, K, T, C), the reverse of the repetition."""
    grouped: Tensor = x.unflatten(1, (num_key_and_value_heads // 2, -1))  # type: ignore[no-untyped-call]
    return grouped.sum(2)
