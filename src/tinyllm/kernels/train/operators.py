"""The kernels as functions of tensors: in bfloat16, on a CPU, by what `library.load` has made ready.

Tensors must be contiguous. Gradients belong to who calls them.

Shapes: B batch, T time, H query heads, K key/value heads, C channels of one head, D model size, N tokens, V vocabulary;
I numbers go into a layer, O come out.
"""

import torch
from torch import Tensor

from tinyllm.kernels.train.library import call


def attention(x: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Causal attention with rotary positions, of `x` (B, T, H + 2K, C): each token's query, key and value heads.

    Queries and keys are turned by the angles of `cos`, `sin` (T, C/2), float32. Gives the output (B, T, H, C) and, for
    the gradient, the logarithm, to base 2, of each softmax's sum (B, H, T), in float32.
    """
    batch, time, all_heads, channels = x.shape
    num_kv_heads = (all_heads - num_heads) // 2
    assert x.dtype == torch.bfloat16
    assert channels % 2 == 0
    assert all_heads == num_heads + 2 * num_kv_heads
    assert num_heads % num_kv_heads == 0
    assert cos.dtype == sin.dtype == torch.float32
    assert cos.shape == sin.shape == (time, channels // 2)
    output = x.new_empty(batch, time, num_heads, channels)
    logs = x.new_empty(batch, num_heads, time, dtype=torch.float32)
    sizes = [batch, time, num_heads, num_kv_heads, channels]
    call("attention", [x, cos, sin, output, logs], sizes)
    return output, logs


def attention_backward(x: Tensor, cos: Tensor, sin: Tensor, output: Tensor, logs: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of `x`, from what `attention` took and gave and the output's `gradient`."""
    assert gradient.dtype == torch.bfloat16
    assert gradient.shape == output.shape
    batch, time, num_heads, channels = output.shape
    of_x = torch.empty_like(x)
    sizes = [batch, time, num_heads, (x.shape[2] - num_heads) // 2, channels]
    call("attention_backward", [x, cos, sin, output, logs, gradient, of_x], sizes)
    return of_x


def weight_gradient(gradient: Tensor, x: Tensor, of_weight: Tensor, *, adds: bool) -> None:
    """The gradient of a layer's weight, from that of its result (N, O) and what went in, `x` (N, I).

    It is set in `of_weight` (O, I), float32, or added to it.
    """
    assert gradient.dtype == x.dtype == torch.bfloat16
    assert of_weight.dtype == torch.float32
    (num_tokens, num_out), num_in = gradient.shape, x.shape[1]
    assert len(x) == num_tokens
    assert of_weight.shape == (num_out, num_in)
    call("weight_gradient", [gradient, x, of_weight], [num_tokens, num_out, num_in, adds])


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x` (..., D) over the root of its mean square, times `gain` (D).

    Gives the result (..., D) and, for the gradient, the inverses of the roots (N), in float32.
    """
    assert x.dtype == gain.dtype == torch.bfloat16
    assert x.shape[-1:] == gain.shape
    num_rows = x.numel() // len(gain)
    normed, inverses = torch.empty_like(x), x.new_empty(num_rows, dtype=torch.float32)
    call("rms_norm", [x, gain, torch.tensor(eps, dtype=torch.float32), normed, inverses], [num_rows, len(gain)])
    return normed, inverses


def rms_norm_backward(
    x: Tensor, gain: Tensor, inverses: Tensor, gradient: Tensor, more: Tensor | None, of_gain: Tensor, *, adds: bool
) -> Tensor:
    """The gradient of `x`, from what `rms_norm` took and gave and the result's `gradient`; `more` is added to it.

    That of the gain is set in `of_gain` (D), float32, or added to it.
    """
    assert gradient.dtype == torch.bfloat16
    assert gradient.shape == x.shape
    assert of_gain.dtype == torch.float32
    assert of_gain.shape == gain.shape
    assert more is None or (more.dtype == torch.bfloat16 and more.shape == x.shape)
    of_x = torch.empty_like(x)
    sizes = [len(inverses), len(gain), adds]
    call("rms_norm_backward", [x, gain, inverses, gradient, more, of_x, of_gain], sizes)
    return of_x


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of (N, F) each."""
    assert gate.dtype == up.dtype == torch.bfloat16
    assert gate.shape == up.shape
    product = torch.empty_like(gate)
    call("swiglu", [gate, up, product], [gate.numel()])
    return product


def swiglu_backward(gate: Tensor, up: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `gate` and `up` (N, F), one beside the other (N, 2F), from the product's; and the product again.

    Computed again it costs less than to keep it until the way back: then it would come from far memory.
    """
    assert gradient.dtype == torch.bfloat16
    assert gradient.shape == gate.shape
    num_tokens, size = gate.shape
    of_both, product = gate.new_empty(num_tokens, 2 * size), torch.empty_like(gate)
    call("swiglu_backward", [gate, up, gradient, of_both, product], [num_tokens, size])
    return of_both, product


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each of `targets` (N), int64, under `logits` (N, V), in nats.

    Gives the losses (N) and, for the gradient, the logarithm, to base 2, of each softmax's sum (N), in float32.
    Raises IndexError for a target that is not in the vocabulary.
    """
    assert logits.dtype == torch.bfloat16
    assert targets.dtype == torch.int64
    assert len(targets) == len(logits)
    num_tokens, vocab_size = logits.shape
    if not ((targets >= 0) & (targets < vocab_size)).all():
        raise IndexError(f"a target is not one of the {vocab_size} tokens of the vocabulary")
    losses, logs = (logits.new_empty(num_tokens, dtype=torch.float32) for _ in range(2))
    call("cross_entropy", [logits, targets, losses, logs], [num_tokens, vocab_size])
    return losses, logs


def cross_entropy_backward(logits: Tensor, targets: Tensor, logs: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of `logits`, from what `cross_entropy` took and gave and each loss's `gradient`, one for all."""
    assert gradient.dtype == torch.float32
    of_logits = torch.empty_like(logits)
    call("cross_entropy_backward", [logits, targets, logs, gradient, of_logits], list(logits.shape))
    return of_logits
