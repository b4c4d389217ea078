"""The kernels as functions of tensors: in bfloat16, on a CPU, by what `library.load` has made ready.

Tensors must be contiguous. Gradients belong to who calls them.

Shapes: B batch, T time, H query heads, K key/value heads, C channels of one head, D model size, N tokens, V vocabulary;
I numbers go into a layer, O come out.
"""

import torch
from torch import Tensor

from tinyllm.model.kernels.library import call


def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention of `query` (B, T, H, C) and the others (B, T, K, C), all bfloat16.

    Gives the output (B, T, H, C) and, for the gradient, the logarithm, to base 2, of each softmax's sum (B, H, T).
    """
    assert query.dtype == key.dtype == value.dtype == torch.bfloat16
    assert key.shape == value.shape
    batch, time, num_heads, channels = query.shape
    output, logs = torch.empty_like(query), query.new_empty(batch, num_heads, time, dtype=torch.float32)
    call("attention", [query, key, value, output, logs], [batch, time, num_heads, key.shape[2], channels])
    return output, logs


def attention_backward(
    query: Tensor, key: Tensor, value: Tensor, output: Tensor, logs: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `query`, `key` and `value`, from what `attention` took and gave and the output's `gradient`."""
    assert gradient.dtype == torch.bfloat16
    assert gradient.shape == query.shape
    batch, time, num_heads, channels = query.shape
    gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    tensors = [query, key, value, output, logs, gradient, *gradients]
    call("attention_backward", tensors, [batch, time, num_heads, key.shape[2], channels])
    return gradients


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient (O, I) of a layer's weight, from that of its result (N, O) and what went in, `x` (N, I)."""
    assert gradient.dtype == x.dtype == torch.bfloat16
    assert len(gradient) == len(x)
    (num_tokens, num_out), num_in = gradient.shape, x.shape[1]
    of_weight = x.new_empty(num_out, num_in)
    call("weight_gradient", [gradient, x, of_weight], [num_tokens, num_out, num_in])
    return of_weight


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


def rms_norm_backward(x: Tensor, gain: Tensor, inverses: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `x` and `gain`, from what `rms_norm` took and gave and the result's `gradient`."""
    assert gradient.dtype == torch.bfloat16
    assert gradient.shape == x.shape
    gradients = torch.empty_like(x), torch.empty_like(gain)
    call("rms_norm_backward", [x, gain, inverses, gradient, *gradients], [len(inverses), len(gain)])
    return gradients


def rotate(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    """`x` (B, T, H, C) turned by the angles of `cos`, `sin` (T, C/2), float32; or back, where `direction` is -1."""
    assert x.dtype == torch.bfloat16
    assert cos.dtype == sin.dtype == torch.float32
    batch, time, num_heads, channels = x.shape
    assert cos.shape == sin.shape == (time, channels // 2)
    turned = torch.empty_like(x)
    call("rotate", [x, cos, sin, turned], [batch * time, time, num_heads, channels // 2, direction])
    return turned


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of any shape."""
    assert gate.dtype == up.dtype == torch.bfloat16
    assert gate.shape == up.shape
    product = torch.empty_like(gate)
    call("swiglu", [gate, up, product], [gate.numel()])
    return product


def swiglu_backward(gate: Tensor, up: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `gate` and `up`, from the product's."""
    assert gradient.dtype == torch.bfloat16
    assert gradient.shape == gate.shape
    gradients = torch.empty_like(gate), torch.empty_like(up)
    call("swiglu_backward", [gate, up, gradient, *gradients], [gate.numel()])
    return gradients


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
