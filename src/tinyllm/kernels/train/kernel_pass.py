"""Forward and backward pass of a whole model, written out call by call on the functions of `operators`.

It replaces autograd where the compiled kernels run: bfloat16 on a CPU with AMX. It does not update weights.

- Forward keeps each layer's activations; backward walks the layers in reverse.
- Products that share their input are one product: queries, keys and values; in backward gate and up as well.
- Residual additions are fused into the gradient of the norm.
- Gradients of weights accumulate in float32 in one flat tensor, which the optimizer reads.

Any module with the functions of `operators` can take its place: tests run both passes on plain PyTorch.

Targets equal to `operators.IGNORED` do not count: they have no loss and no gradient.

Shapes: B windows, T tokens a window predicts, N = B T, D model size, F feed-forward size, H query heads,
K key/value heads, C channels of a head.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.kernels.train import operators
from tinyllm.model.transformer import Block, Transformer

Tables = tuple[Tensor, Tensor]
"""Cosines and sines (T, C/2) of rotary positions."""
ROW = 4096
"""Elements of the flat gradient whose squares form one partial sum."""


class LayerWeights(NamedTuple):
    """The weights of a layer, or their gradients in float32."""

    gain: Tensor
    """(D): of the norm before attention."""
    qkv: Tensor
    """((H + 2K) C, D): the rows of the query, key and value projections."""
    output: Tensor
    """(D, H C)."""
    middle_gain: Tensor
    """(D): of the norm before the feed-forward part."""
    gate_up: Tensor
    """(2F, D): the rows of the gate and up projections."""
    down: Tensor
    """(D, F)."""


class Activations(NamedTuple):
    """The results of a layer's forward pass that its backward pass reads."""

    tables: Tables
    x: Tensor
    """(N, D): the residual stream before the layer."""
    normed: Tensor
    """(N, D)."""
    inverse_rms: Tensor
    """(N)."""
    qkv: Tensor
    """(B, T, H + 2K, C)."""
    heads: Tensor
    """(B, T, H, C)."""
    log_sums: Tensor
    """(B, H, T): log2 of the softmax denominators."""
    middle: Tensor
    """(N, D): the residual stream between attention and the feed-forward part."""
    middle_normed: Tensor
    """(N, D)."""
    middle_inverse_rms: Tensor
    """(N)."""
    gate: Tensor
    """(N, F)."""
    up: Tensor
    """(N, F)."""


class LayerPass:
    """The passes of one layer.

    x' = norm(x) * g,   [Q K V] = x' Wqkv^T,   m = x + attention(Q, K, V) Wo^T
    m' = norm(m) * g',   y = m + (silu(m' Wgate^T) * (m' Wup^T)) Wdown^T
    """

    def __init__(self, block: Block, gradient_of: Callable[[Tensor], Tensor]) -> None:
        self.weights = _layer_weights(block, lambda weight: weight.detach())
        self.gradients = _layer_weights(block, gradient_of)
        self.eps = block.input_layernorm.eps
        self.head_size = block.self_attn.head_size
        self.num_heads = block.self_attn.q_proj.out_features // self.head_size

    def forward(self, x: Tensor, tables: Tables) -> tuple[Tensor, Activations]:
        """The residual stream (B, T, D) after this layer, given the stream `x` (B, T, D) before it; and activations."""
        weights, (batch, time, _), before = self.weights, x.shape, x.flatten(0, 1)
        normed, inverse_rms = operators.rms_norm(before, weights.gain, self.eps)
        qkv = (normed @ weights.qkv.t()).view(batch, time, -1, self.head_size)
        heads, log_sums = operators.attention(qkv, *tables, self.num_heads)
        middle = (heads.view(batch * time, -1) @ weights.output.t()).add_(before)
        middle_normed, middle_inverse_rms = operators.rms_norm(middle, weights.middle_gain, self.eps)
        # One product of twice the width is slower here than two: 3.3 ms, not 2.5, at width 288.
        gate, up = (middle_normed @ half.t() for half in weights.gate_up.chunk(2))
        after = (operators.swiglu(gate, up) @ weights.down.t()).add_(middle).view(x.shape)
        return after, Activations(
            tables,
            before,
            normed,
            inverse_rms,
            qkv,
            heads,
            log_sums,
            middle,
            middle_normed,
            middle_inverse_rms,
            gate,
            up,
        )

    def backward(self, grad_after: Tensor, kept: Activations, *, accumulate: bool) -> Tensor:
        """The gradient (N, D) of the stream before this layer, given `grad_after` (N, D), that of the stream after it.

        Gradients of weights are set, or added to if `accumulate`. For Y = X W^T: dX = dY W, dW = dY^T X.
        """
        grad_middle = self._backward_feed_forward(grad_after, kept, accumulate=accumulate)
        return self._backward_attention(grad_middle, kept, accumulate=accumulate)

    def _backward_feed_forward(self, grad_after: Tensor, kept: Activations, *, accumulate: bool) -> Tensor:
        weights, gradients = self.weights, self.gradients
        grad_gate_up, product = operators.swiglu_backward(kept.gate, kept.up, grad_after @ weights.down)
        operators.weight_gradient(grad_after, product, gradients.down, accumulate=accumulate)
        operators.weight_gradient(grad_gate_up, kept.middle_normed, gradients.gate_up, accumulate=accumulate)
        return operators.rms_norm_backward(
            kept.middle,
            weights.middle_gain,
            kept.middle_inverse_rms,
            grad_gate_up @ weights.gate_up,
            grad_after,
            gradients.middle_gain,
            accumulate=accumulate,
        )

    def _backward_attention(self, grad_middle: Tensor, kept: Activations, *, accumulate: bool) -> Tensor:
        weights, gradients, num_tokens = self.weights, self.gradients, len(grad_middle)
        operators.weight_gradient(grad_middle, kept.heads.view(num_tokens, -1), gradients.output, accumulate=accumulate)
        grad_heads = (grad_middle @ weights.output).view(kept.heads.shape)
        grad_qkv = operators.attention_backward(kept.qkv, *kept.tables, kept.heads, kept.log_sums, grad_heads)
        grad_qkv = grad_qkv.view(num_tokens, -1)
        operators.weight_gradient(grad_qkv, kept.normed, gradients.qkv, accumulate=accumulate)
        return operators.rms_norm_backward(
            kept.x,
            weights.gain,
            kept.inverse_rms,
            grad_qkv @ weights.qkv,
            grad_middle,
            gradients.gain,
            accumulate=accumulate,
        )


class KernelPass:
    """The passes of `model`, which has no dropout. The compiled operators need bfloat16 and `library.load` first.

    The model's weights move into one flat tensor, so that the weights of one product are neighbours in memory.
    """

    def __init__(self, model: Transformer) -> None:
        assert not model.config.dropout, "path.py chooses the kernels only without dropout"
        weights: list[Tensor] = list(model.parameters())
        flat = torch.cat([weight.detach().flatten() for weight in weights])
        for weight, part in zip(weights, _split(flat, weights), strict=True):
            weight.data = part
        self.model, self.decoder = model, model.model
        self._rows = torch.zeros(-(-len(flat) // ROW), ROW)
        self.gradient = self._rows.flatten()[: len(flat)]
        """The gradients of all weights in float32, flat, in the order of the model's parameters."""
        self.gradients = _split(self.gradient, weights)
        """Views of `gradient` in the shapes of the parameters."""
        self._gradient_of = dict(zip(weights, self.gradients, strict=True))
        blocks = (block for block in self.decoder.layers if isinstance(block, Block))
        self.layers = [LayerPass(block, self._gradient_of.__getitem__) for block in blocks]

    def gradient_norm(self) -> Tensor:
        """The Euclidean norm of `gradient`, from the norms of its rows.

        One float32 sum of millions of squares was 0.2 % too small.
        """
        norm: Tensor = torch.linalg.vector_norm(torch.linalg.vector_norm(self._rows, dim=1))
        return norm

    @torch.no_grad()
    def summed_loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Summed cross entropy of `targets` (B, T) int64 after `inputs` (B, T) int64: scalar float32, in nats."""
        stream, _ = self._forward(inputs)
        hidden, _ = operators.rms_norm(stream, self.decoder.norm.weight, self.decoder.norm.eps)
        return operators.cross_entropy(hidden @ self.model.output_weight.t(), _flatten(targets))[0].sum()

    @torch.no_grad()
    def backward(self, inputs: Tensor, targets: Tensor, num_targets: int, *, accumulate: bool) -> Tensor:
        """`summed_loss` / `num_targets`; sets `gradient` to its gradient, or adds it if `accumulate`."""
        stream, all_kept = self._forward(inputs)
        loss, grad_stream = self._loss(stream, _flatten(targets), num_targets, accumulate=accumulate)
        for layer in reversed(self.layers):
            grad_stream = layer.backward(grad_stream, all_kept.pop(), accumulate=accumulate)
        grad_embedding = self._gradient_of[self.decoder.embed_tokens.weight]
        # In a tied model the output projection is the same matrix, and its gradient is already set.
        if self.model.lm_head is not None and not accumulate:
            grad_embedding.zero_()
        grad_embedding.index_add_(0, inputs.flatten(), grad_stream.float())
        return loss

    def _forward(self, inputs: Tensor) -> tuple[Tensor, list[Activations]]:
        """The stream (N, D) after all layers, and the activations of each."""
        tables = self.decoder.rotary_of(0, inputs.shape[1])
        stream = F.embedding(inputs, self.decoder.embed_tokens.weight)
        all_kept = []
        for layer in self.layers:
            stream, kept = layer.forward(stream, tables)
            all_kept.append(kept)
        return stream.flatten(0, 1), all_kept

    def _loss(self, stream: Tensor, targets: Tensor, num_targets: int, *, accumulate: bool) -> tuple[Tensor, Tensor]:
        """The loss of the last stream (N, D), summed and divided by `num_targets`, and the stream's gradient (N, D)."""
        norm, output_weight = self.decoder.norm, self.model.output_weight
        hidden, inverse_rms = operators.rms_norm(stream, norm.weight, norm.eps)
        logits = hidden @ output_weight.t()
        losses, log_sums = operators.cross_entropy(logits, targets)
        grad_logits = operators.cross_entropy_backward(logits, targets, log_sums, torch.tensor(1 / num_targets))
        operators.weight_gradient(grad_logits, hidden, self._gradient_of[output_weight], accumulate=accumulate)
        grad_stream = operators.rms_norm_backward(
            stream,
            norm.weight,
            inverse_rms,
            grad_logits @ output_weight,
            None,
            self._gradient_of[norm.weight],
            accumulate=accumulate,
        )
        return losses.sum() / num_targets, grad_stream


def _flatten(targets: Tensor) -> Tensor:
    """The targets (N), contiguous: `flatten` alone returns a strided view for windows of one token."""
    return targets.flatten().contiguous()


def _split(flat: Tensor, shapes: Sequence[Tensor]) -> list[Tensor]:
    """Consecutive views of `flat` in the shapes of `shapes`."""
    parts = torch.split(flat, [shape.numel() for shape in shapes])
    return [part.view(shape.shape) for part, shape in zip(parts, shapes, strict=True)]


def _layer_weights(block: Block, tensor_of: Callable[[Tensor], Tensor]) -> LayerWeights:
    """`tensor_of` each weight of `block`, with the matrices that share an input stacked."""
    attention, mlp = block.self_attn, block.mlp
    return LayerWeights(
        tensor_of(block.input_layernorm.weight),
        _stack([tensor_of(linear.weight) for linear in (attention.q_proj, attention.k_proj, attention.v_proj)]),
        tensor_of(attention.o_proj.weight),
        tensor_of(block.post_attention_layernorm.weight),
        _stack([tensor_of(linear.weight) for linear in (mlp.gate_proj, mlp.up_proj)]),
        tensor_of(mlp.down_proj.weight),
    )


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """The rows of `parts`, which are neighbours in memory, as one matrix without a copy."""
    assert all(above.data_ptr() + above.nbytes == below.data_ptr() for above, below in pairwise(parts))
    first, num_rows = parts[0], sum(len(part) for part in parts)
    return first.as_strided((num_rows, first.shape[1]), first.stride())
