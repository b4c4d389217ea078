"""Converts between formats that hold the same Llama: tensor names, and the order of query and key rows.

Tensors in tinyllm have Hugging Face's names, and channel i of a head is rotated together with channel i + C/2
(half-split). llama2.c and GGUF use other names and rotate channels 2i and 2i + 1 (interleaved). There the rows of each
query and key head are stored in another order.

Shapes: H heads, C channels of one head, D model size.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyllm.config import ModelConfig

Floats = NDArray[np.float32]


def to_half_split(rows: Floats, num_heads: int) -> Floats:
    """Permutes the rows of a query or key projection (H * C, D), or its bias (H * C), to half-split order."""
    pairs = rows.reshape(num_heads, len(rows) // num_heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def to_interleaved(rows: Floats, num_heads: int) -> Floats:
    """Permutes the rows of a query or key projection (H * C, D), or its bias (H * C), to interleaved order."""
    halves = rows.reshape(num_heads, 2, len(rows) // num_heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def halve_heads(tensors: Mapping[str, Floats], config: ModelConfig) -> dict[str, Floats]:
    """`tensors` under Hugging Face names with all query and key projections in half-split order."""
    return {name: to_half_split(t, _num_heads(name, config)) if _is_rotated(name) else t for name, t in tensors.items()}


def interleave_heads(tensors: Mapping[str, Floats], config: ModelConfig) -> dict[str, Floats]:
    """`tensors` under Hugging Face names with all query and key projections in interleaved order."""
    return {
        name: to_interleaved(t, _num_heads(name, config)) if _is_rotated(name) else t for name, t in tensors.items()
    }


def _is_rotated(name: str) -> bool:
    return ".q_proj." in name or ".k_proj." in name


def _num_heads(name: str, config: ModelConfig) -> int:
    return config.num_heads if ".q_proj." in name else config.num_kv_heads


@dataclass(frozen=True)
class Naming:
    """The tensor names of one format, next to Hugging Face's."""

    layer_prefix: str
    """Prefix of a layer's tensors, followed by the layer's number and a dot."""
    top: dict[str, str]
    """Hugging Face name -> this format's name, for tensors outside the layers."""
    layer: dict[str, str]
    """Hugging Face name -> this format's name, after the layer's number and a dot."""

    def from_hugging_face(self, name: str) -> str:
        """This format's name for Hugging Face's `name`. Raises KeyError if a Llama has no such tensor."""
        if name in self.top:
            return self.top[name]
        number, rest = name.removeprefix(HUGGING_FACE_LAYER).split(".", 1)
        return f"{self.layer_prefix}{number}.{self.layer[rest]}"

    def to_hugging_face(self, name: str) -> str:
        """Hugging Face's name for this format's `name`; an unknown name is returned unchanged."""
        for hugging_face, own in self.top.items():
            if own == name:
                return hugging_face
        number, _, rest = name.removeprefix(self.layer_prefix).partition(".")
        if not (name.startswith(self.layer_prefix) and number.isascii() and number.isdigit()):
            return name
        for hugging_face, own in self.layer.items():
            if own == rest:
                return f"{HUGGING_FACE_LAYER}{number}.{hugging_face}"
        return name


HUGGING_FACE_LAYER = "model.layers."

LLAMA2C = Naming(
    layer_prefix="layers.",
    top={
        "model.embed_tokens.weight": "tok_embeddings.weight",
        "model.norm.weight": "norm.weight",
        "lm_head.weight": "output.weight",
    },
    layer={
        "input_layernorm.weight": "attention_norm.weight",
        "self_attn.q_proj.weight": "attention.wq.weight",
        "self_attn.k_proj.weight": "attention.wk.weight",
        "self_attn.v_proj.weight": "attention.wv.weight",
        "self_attn.o_proj.weight": "attention.wo.weight",
        "post_attention_layernorm.weight": "ffn_norm.weight",
        "mlp.gate_proj.weight": "feed_forward.w1.weight",
        "mlp.down_proj.weight": "feed_forward.w2.weight",
        "mlp.up_proj.weight": "feed_forward.w3.weight",
    },
)
"""Tensor names of Meta's and llama2.c's checkpoints."""

GGUF = Naming(
    layer_prefix="blk.",
    top={
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    },
    layer={
        "input_layernorm.weight": "attn_norm.weight",
        "self_attn.q_proj.weight": "attn_q.weight",
        "self_attn.k_proj.weight": "attn_k.weight",
        "self_attn.v_proj.weight": "attn_v.weight",
        "self_attn.o_proj.weight": "attn_output.weight",
        "post_attention_layernorm.weight": "ffn_norm.weight",
        "mlp.gate_proj.weight": "ffn_gate.weight",
        "mlp.down_proj.weight": "ffn_down.weight",
        "mlp.up_proj.weight": "ffn_up.weight",
        "self_attn.q_proj.bias": "attn_q.bias",
        "self_attn.k_proj.bias": "attn_k.bias",
        "self_attn.v_proj.bias": "attn_v.bias",
        "self_attn.o_proj.bias": "attn_output.bias",
        "mlp.gate_proj.bias": "ffn_gate.bias",
        "mlp.down_proj.bias": "ffn_down.bias",
        "mlp.up_proj.bias": "ffn_up.bias",
    },
)
"""Tensor names of llama.cpp's GGUF files of architecture llama."""
