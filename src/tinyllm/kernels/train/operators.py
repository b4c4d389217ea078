"""The compiled kernels as functions of tensors: bfloat16, contiguous, on a CPU, after `library.load`.

Each function checks dtypes and shapes, allocates its results and calls the C++ function of the same name. The plain
PyTorch version of each is in `tests/unit/kernels/train/plain_operators.py`. Autograd records nothing here.

Shapes: B batch, T time, H query heads, K key/value heads, C channels of one head, D model size, F feed-forward size,
N tokens, V vocabulary; I inputs and O outputs of a linear layer.
"""

import torch
from torch import Tensor

from tinyllm.kernels.train.library import call

IGNORED = -100
"""A target that does not count, by PyTorch's convention: its position has no loss and no gradient."""


def attention(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Causal attention: output (B, T, H, C), and log2 of the softmax denominators (B, H, T) in float32.

    `qkv` (B, T, H + 2K, C) holds the query, key and value heads of each token. `cos`, `sin` (T, C/2), float32, rotate
    queries and keys:

        S = rotate(Q) rotate(K)^T / sqrt(C),   output = softmax(S) V,   log_sums = log2(sum_k e^S)
    """
    batch, time, all_heads, channels = qkv.shape
    num_kv_heads = (all_heads - num_heads) // 2
    assert qkv.dtype == torch.bfloat16
    assert channels % 2 == 0
    assert all_heads == num_heads + 2 * num_kv_heads
    assert num_heads % num_kv_heads == 0
    assert cos.dtype == sin.dtype == torch.float32
    assert cos.shape == sin.shape == (time, channels // 2)
    output = qkv.new_empty(batch, time, num_heads, channels)
    log_sums = qkv.new_empty(batch, num_heads, time, dtype=torch.float32)
    sizes = [batch, time, num_heads, num_kv_heads, channels]
    call("attention", [qkv, cos, sin, output, log_sums], sizes)
    return output, log_sums


def attention_backward(
    qkv: Tensor, cos: Tensor, sin: Tensor, output: Tensor, log_sums: Tensor, grad_out: Tensor
) -> Tensor:
    """The gradient of `qkv` (B, T, H + 2K, C), given the arguments and results of `attention`.

    With Q and K rotated (Dao et al. 2022, algorithm 4):

        P = 2^(S log2(e) - log_sums),   dP = dO V^T,   dS = P * (dP - rowsum(dO * O)) / sqrt(C)
        dQ = dS K,   dK = dS^T Q,   dV = P^T dO;   dQ and dK are rotated back
    """
    assert grad_out.dtype == torch.bfloat16
    assert grad_out.shape == output.shape
    batch, time, num_heads, channels = output.shape
    grad_qkv = torch.empty_like(qkv)
    sizes = [batch, time, num_heads, (qkv.shape[2] - num_heads) // 2, channels]
    call("attention_backward", [qkv, cos, sin, output, log_sums, grad_out, grad_qkv], sizes)
    return grad_qkv


def weight_gradient(grad_out: Tensor, x: Tensor, grad_weight: Tensor, *, accumulate: bool) -> None:
    """Sets `grad_weight` (O, I), float32, to dY^T X, or adds it if `accumulate`, for Y = X W^T.

    `grad_out` is dY (N, O), `x` is X (N, I).
    """
    assert grad_out.dtype == x.dtype == torch.bfloat16
    assert grad_weight.dtype == torch.float32
    (num_tokens, num_out), num_in = grad_out.shape, x.shape[1]
    assert len(x) == num_tokens
    assert grad_weight.shape == (num_out, num_in)
    call("weight_gradient", [grad_out, x, grad_weight], [num_tokens, num_out, num_in, accumulate])


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x * r * gain (..., D), and the inverse root mean squares r (N) in float32; `gain` is (D).

    r = 1 / sqrt(mean(x^2) + eps)
    """
    assert x.dtype == gain.dtype == torch.bfloat16
    assert x.shape[-1:] == gain.shape
    num_rows = x.numel() // len(gain)
    normed, inverse_rms = torch.empty_like(x), x.new_empty(num_rows, dtype=torch.float32)
    call("rms_norm", [x, gain, torch.tensor(eps, dtype=torch.float32), normed, inverse_rms], [num_rows, len(gain)])
    return normed, inverse_rms


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
    """The gradient of `x` (..., D), given the arguments and results of `rms_norm`.

    `grad_residual` (..., D) is the gradient that reaches x past the norm. `grad_gain` (D), float32, is set, or added to
    if `accumulate`.

        dx = r * (g * dy - x r^2 mean(x * g * dy)) + grad_residual,   dg = sum over tokens of dy * x r
    """
    assert grad_normed.dtype == torch.bfloat16
    assert grad_normed.shape == x.shape
    assert grad_gain.dtype == torch.float32
    assert grad_gain.shape == gain.shape
    assert grad_residual is None or (grad_residual.dtype == torch.bfloat16 and grad_residual.shape == x.shape)
    grad_x = torch.empty_like(x)
    sizes = [len(inverse_rms), len(gain), accumulate]
    call("rms_norm_backward", [x, gain, inverse_rms, grad_normed, grad_residual, grad_x, grad_gain], sizes)
    return grad_x


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (N, F), with silu(z) = z sigmoid(z)."""
    assert gate.dtype == up.dtype == torch.bfloat16
    assert gate.shape == up.shape
    product = torch.empty_like(gate)
    call("swiglu", [gate, up, product], [gate.numel()])
    return product


def swiglu_backward(gate: Tensor, up: Tensor, grad_product: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `gate` and `up` side by side (N, 2F), and the product (N, F) again.

        d_gate = d * up * s (1 + gate (1 - s)),   d_up = d * gate s,   with s = sigmoid(gate)

    The product is recomputed because reading a stored one from memory takes longer.
    """
    assert grad_product.dtype == torch.bfloat16
    assert grad_product.shape == gate.shape
    num_tokens, size = gate.shape
    grad_gate_up, product = gate.new_empty(num_tokens, 2 * size), torch.empty_like(gate)
    call("swiglu_backward", [gate, up, grad_product, grad_gate_up, product], [num_tokens, size])
    return grad_gate_up, product


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy in nats (N), and log2 of the softmax denominators (N), both float32.

    `logits` is (N, V), `targets` (N) int64; the loss of a target equal to `IGNORED` is 0. Raises IndexError for any
    other target outside the vocabulary.

        log_sum = log2(sum_v e^z_v),   loss = log_sum / log2(e) - z_target
    """
    assert logits.dtype == torch.bfloat16
    assert targets.dtype == torch.int64
    assert len(targets) == len(logits)
    num_tokens, vocab_size = logits.shape
    if not ((targets == IGNORED) | ((targets >= 0) & (targets < vocab_size))).all():
        raise IndexError(f"a target is neither one of the {vocab_size} tokens of the vocabulary nor {IGNORED}")
    losses, log_sums = (logits.new_empty(num_tokens, dtype=torch.float32) for _ in range(2))
    call("cross_entropy", [logits, targets, losses, log_sums], [num_tokens, vocab_size])
    return losses, log_sums


def cross_entropy_backward(logits: Tensor, targets: Tensor, log_sums: Tensor, grad_loss: Tensor) -> Tensor:
    """The gradient of `logits` (N, V), given the arguments and log sums of `cross_entropy`.

    `grad_loss` is one float32 number, the gradient of every loss. The row of a target equal to `IGNORED` is 0.

        dz = (softmax(z) - onehot(target)) * grad_loss,   softmax(z) = 2^(z log2(e) - log_sum)
    """
    assert grad_loss.dtype == torch.float32
    grad_logits = torch.empty_like(logits)
    call("cross_entropy_backward", [logits, targets, log_sums, grad_loss, grad_logits], list(logits.shape))
    return grad_logits
