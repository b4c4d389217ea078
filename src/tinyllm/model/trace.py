"""The inside of one pass of a model: attention weights, residual streams, and the logit lens. It keeps no gradients.

The logit lens (nostalgebraist 2020) applies the final norm and the output projection to the stream between two blocks.
It gives the next token as if the blocks that follow did not exist.

Shapes: T time, D model size, L layers, H query heads, V vocabulary, K likeliest tokens.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyllm.model.transformer import Block, Transformer


class Inside(NamedTuple):
    """The numbers of one pass. Row l of `norms` and `lens_*` is the stream before block l, row L after the last."""

    attention: NDArray[np.float32]
    """Weights (L, H, T, T), query then key."""
    norms: NDArray[np.float32]
    """Euclidean length of the stream (L + 1, T)."""
    lens_ids: NDArray[np.int64]
    """The K likeliest next tokens by the logit lens (L + 1, T, K), likeliest first."""
    lens_probabilities: NDArray[np.float32]
    """Their probabilities (L + 1, T, K)."""
    log_probabilities: NDArray[np.float32]
    """Log-probability of each token but the first under the model (T - 1,), in nats."""


@torch.inference_mode()
def look_inside(model: Transformer, ids: NDArray[np.int64], num_likeliest: int) -> Inside:
    """The inside of one pass over `ids` (T,). Raises ValueError past the context length."""
    tokens = torch.from_numpy(ids).to(model.output_weight.device)
    streams, attention = trace_pass(model, tokens)
    tops = [lens(model, stream).topk(num_likeliest) for stream in streams]
    following = lens(model, streams[-1][:-1]).gather(1, tokens[1:, None])[:, 0]
    return Inside(
        _numbers(torch.stack(attention)),
        _numbers(torch.stack([stream.float().norm(dim=-1) for stream in streams])),
        torch.stack([top.indices for top in tops]).cpu().numpy(),
        _numbers(torch.stack([top.values for top in tops]).exp()),
        _numbers(following),
    )


def trace_pass(model: Transformer, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The L + 1 residual streams (T, D) of `tokens` (T,), and the attention weights (H, T, T) of each layer."""
    decoder = model.model
    cos, sin = decoder.rotary_of(0, len(tokens))
    streams, attention = [decoder.embed_tokens(tokens)], []
    for module in decoder.layers:
        assert isinstance(module, Block)
        before = streams[-1][None]
        attention.append(module.self_attn.weights(module.input_layernorm(before), cos, sin)[0])
        streams.append(module(before, cos, sin)[0])
    return streams, attention


def lens(model: Transformer, stream: Tensor) -> Tensor:
    """Log-probabilities (T, V) of the next token, float32, as if `stream` (T, D) came from the last block."""
    return model.project(model.model.norm(stream)).float().log_softmax(-1)


def _numbers(tensor: Tensor) -> NDArray[np.float32]:
    """`tensor` as float32 numbers of NumPy."""
    numbers: NDArray[np.float32] = tensor.float().cpu().numpy()
    return numbers
