"""The forward and the backward pass of a whole model in bfloat16, written out call by call for our own kernels.

Here stands what autograd would do, in its order: each layer keeps what its gradients need, and the way back takes it up
from the last layer to the first. Written out, products that share their input are one, sums ride on the kernel that
comes next, and gradients of weights add up in float32 where the optimizer looks for them.

Shapes: B windows, T tokens a window predicts, N = B T of all of them, D model size, F feed-forward size, H query heads,
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
"""Numbers of the gradient whose squares are summed up at once."""


class LayerWeights(NamedTuple):
    """The weights of a layer in bfloat16; or their gradients in float32."""

    gain: Tensor
    query_key_value: Tensor
    """((H + 2K) C, D): those of three projections, one under another."""
    output: Tensor
    middle_gain: Tensor
    gate_up: Tensor
    """(2F, D)."""
    down: Tensor


class Kept(NamedTuple):
    """What a layer keeps for its gradients."""

    tables: Tables
    before: Tensor
    """The stream (N, D) as it came."""
    normed: Tensor
    inverses: Tensor
    """Of the roots of its mean squares (N), for the gradient of the norm."""
    projected: Tensor
    """(B, T, H + 2K, C): queries, keys and values."""
    heads: Tensor
    """(B, T, H, C)."""
    logs: Tensor
    """Of the softmaxes' sums (B, H, T)."""
    middle: Tensor
    """The stream (N, D) after attention, and so on as before it."""
    middle_normed: Tensor
    middle_inverses: Tensor
    gate: Tensor
    """(N, F), as `up`."""
    up: Tensor


class LayerPass:
    """The passes of one layer."""

    def __init__(self, block: Block, gradient_of: Callable[[Tensor], Tensor]) -> None:
        self.weights = _weights_of(block, lambda weight: weight.detach())
        self.gradients = _weights_of(block, gradient_of)
        self.eps = block.input_layernorm.eps
        self.head_size = block.self_attn.head_size
        self.num_heads = block.self_attn.q_proj.out_features // self.head_size

    def forward(self, x: Tensor, tables: Tables) -> tuple[Tensor, Kept]:
        """The stream `x` (B, T, D) after this layer, and what `backward` will want."""
        weights, (batch, time, _), before = self.weights, x.shape, x.flatten(0, 1)
        normed, inverses = operators.rms_norm(before, weights.gain, self.eps)
        projected = (normed @ weights.query_key_value.t()).view(batch, time, -1, self.head_size)
        heads, logs = operators.attention(projected, *tables, self.num_heads)
        middle = (heads.view(batch * time, -1) @ weights.output.t()).add_(before)
        middle_normed, middle_inverses = operators.rms_norm(middle, weights.middle_gain, self.eps)
        # Two products: one as wide as both is slower, where nothing has to be added up.
        gate, up = (middle_normed @ half.t() for half in weights.gate_up.chunk(2))
        after = (operators.swiglu(gate, up) @ weights.down.t()).add_(middle).view(x.shape)
        return after, Kept(
            tables, before, normed, inverses, projected, heads, logs, middle, middle_normed, middle_inverses, gate, up
        )

    def backward(self, of_after: Tensor, kept: Kept, *, adds: bool) -> Tensor:
        """The gradient (N, D) of the stream as it came, from that of the stream after this layer.

        Those of the weights are set, or added to what is there.
        """
        weights, gradients = self.weights, self.gradients
        of_gate_up, gated = operators.swiglu_backward(kept.gate, kept.up, of_after @ weights.down)
        operators.weight_gradient(of_after, gated, gradients.down, adds=adds)
        operators.weight_gradient(of_gate_up, kept.middle_normed, gradients.gate_up, adds=adds)
        of_normed = of_gate_up @ weights.gate_up
        of_middle = operators.rms_norm_backward(
            kept.middle,
            weights.middle_gain,
            kept.middle_inverses,
            of_normed,
            of_after,
            gradients.middle_gain,
            adds=adds,
        )
        operators.weight_gradient(of_middle, kept.heads.view(len(of_middle), -1), gradients.output, adds=adds)
        of_heads = (of_middle @ weights.output).view(kept.heads.shape)
        of_projected = operators.attention_backward(kept.projected, *kept.tables, kept.heads, kept.logs, of_heads)
        of_projected = of_projected.view(len(of_middle), -1)
        operators.weight_gradient(of_projected, kept.normed, gradients.query_key_value, adds=adds)
        of_normed = of_projected @ weights.query_key_value
        return operators.rms_norm_backward(
            kept.before, weights.gain, kept.inverses, of_normed, of_middle, gradients.gain, adds=adds
        )


class KernelPass:
    """The passes of `model`: bfloat16, on a CPU with AMX, without dropout. `library.load` comes first."""

    def __init__(self, model: Transformer) -> None:
        assert not model.config.dropout, "who chooses this way looks at dropout"
        weights: list[Tensor] = list(model.parameters())
        flat = torch.cat([weight.detach().flatten() for weight in weights])
        for weight, part in zip(weights, _parts(flat, weights), strict=True):
            weight.data = part  # neighbours are one matrix now
        self.model, self.decoder = model, model.model
        self._rows = torch.zeros(-(-len(flat) // ROW), ROW)
        self.gradient = self._rows.flatten()[: len(flat)]
        """Of all weights, one after another in the order of the model's parameters, in float32."""
        self.gradients = _parts(self.gradient, weights)
        """The same in their shapes."""
        self._gradient_of = dict(zip(weights, self.gradients, strict=True))
        blocks = (block for block in self.decoder.layers if isinstance(block, Block))
        self.layers = [LayerPass(block, self._gradient_of.__getitem__) for block in blocks]

    def gradient_norm(self) -> Tensor:
        """The length of `gradient`. Row by row: one sum of millions of numbers in float32 was 0.2 % too small."""
        norm: Tensor = torch.linalg.vector_norm(torch.linalg.vector_norm(self._rows, dim=1))
        return norm

    @torch.no_grad()
    def summed_loss(self, tokens: Tensor) -> Tensor:
        """Cross entropy of each window's next tokens, summed: `tokens` (B, T + 1) int64 -> scalar float32, in nats."""
        stream, _ = self._forward(tokens)
        hidden, _ = operators.rms_norm(stream, self.decoder.norm.weight, self.decoder.norm.eps)
        return operators.cross_entropy(hidden @ self.model.output_weight.t(), _targets(tokens))[0].sum()

    @torch.no_grad()
    def backward(self, tokens: Tensor, num_tokens: int, *, adds: bool) -> Tensor:
        """The `summed_loss` of `tokens` over `num_tokens`; its gradients are set, or added to what is there."""
        stream, kept = self._forward(tokens)
        loss, of_stream = self._loss(stream, _targets(tokens), num_tokens, adds=adds)
        for layer in reversed(self.layers):
            of_stream = layer.backward(of_stream, kept.pop(), adds=adds)
        of_embedding = self._gradient_of[self.decoder.embed_tokens.weight]
        if self.model.lm_head is not None and not adds:
            of_embedding.zero_()  # else the output projection, which is the same matrix, has set it
        of_embedding.index_add_(0, tokens[:, :-1].flatten(), of_stream.float())
        return loss

    def _forward(self, tokens: Tensor) -> tuple[Tensor, list[Kept]]:
        """The stream (N, D) after all layers, and what each of them keeps."""
        inputs = tokens[:, :-1]
        tables = self.decoder.rotary_of(0, inputs.shape[1])
        stream = F.embedding(inputs, self.decoder.embed_tokens.weight)
        all_kept = []
        for layer in self.layers:
            stream, kept = layer.forward(stream, tables)
            all_kept.append(kept)
        return stream.flatten(0, 1), all_kept

    def _loss(self, stream: Tensor, targets: Tensor, num_tokens: int, *, adds: bool) -> tuple[Tensor, Tensor]:
        """The loss of the last stream (N, D), summed and over `num_tokens`, and the stream's gradient."""
        norm, output_weight = self.decoder.norm, self.model.output_weight
        hidden, inverses = operators.rms_norm(stream, norm.weight, norm.eps)
        logits = hidden @ output_weight.t()
        losses, logs = operators.cross_entropy(logits, targets)
        of_logits = operators.cross_entropy_backward(logits, targets, logs, torch.tensor(1 / num_tokens))
        operators.weight_gradient(of_logits, hidden, self._gradient_of[output_weight], adds=adds)
        of_stream = operators.rms_norm_backward(
            stream, norm.weight, inverses, of_logits @ output_weight, None, self._gradient_of[norm.weight], adds=adds
        )
        return losses.sum() / num_tokens, of_stream


def _targets(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].flatten().contiguous()  # of windows of one token `flatten` makes a view


def _parts(flat: Tensor, shapes: Sequence[Tensor]) -> list[Tensor]:
    """`flat` cut into what has the shapes of `shapes`."""
    parts = torch.split(flat, [shape.numel() for shape in shapes])
    return [part.view(shape.shape) for part, shape in zip(parts, shapes, strict=True)]


def _weights_of(block: Block, tensor_of: Callable[[Tensor], Tensor]) -> LayerWeights:
    attention, mlp = block.self_attn, block.mlp
    return LayerWeights(
        tensor_of(block.input_layernorm.weight),
        _stacked([tensor_of(linear.weight) for linear in (attention.q_proj, attention.k_proj, attention.v_proj)]),
        tensor_of(attention.o_proj.weight),
        tensor_of(block.post_attention_layernorm.weight),
        _stacked([tensor_of(linear.weight) for linear in (mlp.gate_proj, mlp.up_proj)]),
        tensor_of(mlp.down_proj.weight),
    )


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """The rows of `parts`, which lie one after another in memory, as one matrix."""
    assert all(above.data_ptr() + above.nbytes == below.data_ptr() for above, below in pairwise(parts))
    first, num_rows = parts[0], sum(len(part) for part in parts)
    return first.as_strided((num_rows, first.shape[1]), first.stride())
