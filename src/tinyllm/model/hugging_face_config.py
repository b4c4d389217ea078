"""A model's shape as Hugging Face's `config.json` writes it: pure translation there and back, and what is refused.

transformers 4 and 5 differ on where the base of the rotary frequencies and the dtype stand. Both places are written,
either is read.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError

FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "context_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "tie_embeddings": "tie_word_embeddings",
}
"""Our name of each field, and theirs. Dropout is no part of it: it belongs to a training run."""

# What transformers assumes where a config.json leaves the key out.
_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "tie_word_embeddings": False, "num_key_value_heads": 0}
# Parts of the Llama family that this model does not have; each must be absent, null, or the value here.
_REQUIRED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "quantization_config": None}
# Far above any model of this kind. Without them a damaged number would ask for all memory before anything is checked.
_LIMITS = {"num_hidden_layers": 1_000, "max_position_embeddings": 2**20, "vocab_size": 2**24, "hidden_size": 2**16}


def to_hugging_face(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The content of `config.json`, but for the ids of special tokens, which the tokenizer knows."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def from_hugging_face(content: Mapping[str, Any], where: str) -> ModelConfig:
    """The shape in the content of a `config.json`; `where` names the file in messages.

    Raises FormatError for a field that is missing or out of range, and for an architecture other than Llama 2's.
    """
    stored = {**_DEFAULTS, **content}
    if stored.get("model_type") != "llama":
        raise FormatError(f"{where}: model_type is {stored.get('model_type')!r}; only 'llama' is read")
    for key, required in _REQUIRED.items():
        if stored.get(key) not in (None, required):
            raise FormatError(f"{where}: {key} is {stored[key]!r}; only {required!r} is read")
    stored["rope_theta"] = _rope_theta(stored, where)
    missing = [key for key in FIELDS.values() if key not in stored]
    if missing:
        raise FormatError(f"{where} has no {', '.join(missing)}")
    for key, limit in _LIMITS.items():
        if isinstance(stored[key], int) and stored[key] > limit:
            raise FormatError(f"{where}: {key} is {stored[key]}; at most {limit} is read")
    config = _validated({ours: stored[theirs] for ours, theirs in FIELDS.items()}, where)
    if stored.get("head_dim") not in (None, config.head_size):
        raise FormatError(f"{where}: head_dim is {stored['head_dim']!r}; only hidden_size / heads is read")
    return config


def _rope_theta(stored: Mapping[str, Any], where: str) -> object:
    """The base of the rotary frequencies, from either place. Raises FormatError for scaled frequencies."""
    theta = stored["rope_theta"]
    for key in ("rope_scaling", "rope_parameters"):
        parameters = stored.get(key) or {}
        if not isinstance(parameters, dict):
            raise FormatError(f"{where}: {key} is {parameters!r}; expected an object")
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind != "default" or parameters.get("partial_rotary_factor", 1) != 1:
            raise FormatError(f"{where}: {key} changes the rotary frequencies ({kind}); only plain ones are read")
        theta = parameters.get("rope_theta", theta)
    return theta


def _validated(values: dict[str, Any], where: str) -> ModelConfig:
    try:
        return ModelConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        names = [FIELDS.get(str(part), str(part)) for part in first["loc"]]
        raise FormatError(": ".join([where, *names, first["msg"].removeprefix("Value error, ")])) from None
