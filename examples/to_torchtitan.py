"""Loads a model of tinyllm in torchtitan, by its Hugging Face weights, and compares the logits of both.

    pip install torchtitan
    python examples/to_torchtitan.py runs/first/model

torchtitan describes a shape in Python, in the registry of its `llama3`. `describe` returns the shape of a model
directory for it; the weights go through torchtitan's own adapter. A run of torchtitan starts from the same directory,
with `initial_load_in_hf` and `initial_load_path` of its checkpoints. Models with biases or scaled RoPE are refused.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

try:
    from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
    from torchtitan.models.common.attention import ScaledDotProductAttention
    from torchtitan.models.llama3 import Llama3StateDictAdapter, _build_llama3_layers
    from torchtitan.models.llama3.model import Llama3Model
except ImportError as error:
    sys.exit(f"this program needs torchtitan ({error}): pip install torchtitan; 0.3.0 was tried")


def describe(facts: dict[str, Any], *, on_cpu: bool = False) -> Llama3Model.Config:
    """The shape of torchtitan for a `config.json`. Raises ValueError for a model that its Llama 3 cannot express.

    torchtitan trains with compiled attention; `on_cpu` takes PyTorch's plain one, which needs no compiler.
    """
    width, heads, vocabulary = facts["hidden_size"], facts["num_attention_heads"], facts["vocab_size"]
    refused = {
        "biases": facts.get("attention_bias") or facts.get("mlp_bias"),
        "scaled RoPE": facts.get("rope_scaling"),
        "heads of another width": facts.get("head_dim", width // heads) != width // heads,
    }
    for name, is_there in refused.items():
        if is_there:
            raise ValueError(f"the model has {name}, which torchtitan's Llama 3 has not")
    norm = RMSNorm.Config(normalized_shape=width, eps=facts["rms_norm_eps"])
    layers = _build_llama3_layers(
        n_layers=facts["num_hidden_layers"],
        dim=width,
        n_heads=heads,
        n_kv_heads=facts["num_key_value_heads"],
        hidden_dim=facts["intermediate_size"],
        rope=ComplexRoPE.Config(
            dim=width // heads, max_seq_len=facts["max_position_embeddings"], theta=read_theta(facts)
        ),
        fuse_qkv=False,
        attn_backend="flex",
    )
    for layer in layers:
        layer.attention_norm = layer.ffn_norm = norm
        if on_cpu:
            layer.attention.inner_attention = ScaledDotProductAttention.Config()
    return Llama3Model.Config(
        dim=width,
        vocab_size=vocabulary,
        enable_weight_tying=facts["tie_word_embeddings"],
        tok_embeddings=Embedding.Config(num_embeddings=vocabulary, embedding_dim=width),
        norm=norm,
        lm_head=Linear.Config(in_features=width, out_features=vocabulary),
        layers=layers,
    )


def read_theta(facts: dict[str, Any]) -> float:
    """The base of the rotary frequencies, where the older or the newer `config.json` has it."""
    return float((facts.get("rope_parameters") or facts).get("rope_theta", 10_000.0))


def load(path: Path) -> Llama3Model:
    """The model directory `path` as torchtitan's model, every weight in its place."""
    config = describe(json.loads((path / "config.json").read_text(encoding="utf-8")), on_cpu=True)
    adapter = Llama3StateDictAdapter(config, str(path))
    model = config.build()
    model.load_state_dict(adapter.from_hf(load_file(path / "model.safetensors")), strict=True)
    return model.eval()


@torch.no_grad()
def largest_difference(path: Path) -> float:
    """The largest difference between the logits of torchtitan and of tinyllm, on random tokens."""
    import tinyllm

    ours = tinyllm.load(path, device="cpu")
    generator = torch.Generator().manual_seed(0)
    length = min(64, ours.config.context_length)
    tokens = torch.randint(3, ours.config.vocab_size, (1, length), generator=generator)
    theirs = load(path)(tokens)[0].float().numpy()
    return float(abs(theirs - ours.logits(tokens[0].tolist())).max())


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "config.json").exists():
        sys.exit("give one model directory, which has a config.json: python examples/to_torchtitan.py runs/first/model")
    try:
        print(f"largest difference of logits: {largest_difference(Path(sys.argv[1])):.2e}")
    except ValueError as error:
        sys.exit(str(error))
