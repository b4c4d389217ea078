"""Translates between `ModelConfig` and Hugging Face's `config.json`, and refuses models that are not Llama 2.

transformers 4 and 5 store the base of the rotary frequencies and the dtype under different keys. Both keys are
written; either is read.
"""

from collections.abc import Callable, Mapping
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
"""Field of `ModelConfig` -> key of `config.json`. Dropout has none: it belongs to a training run."""

# The defaults of transformers for keys that a config.json omits.
_DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "num_key_value_heads": 0,
    "max_position_embeddings": 2048,
}
# Features of the Llama family that this model lacks; each key must be absent, null, or one of these values.
_REQUIRED: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "quantization_config": (None,),
}
# Far above any model of this kind. They stop a damaged number from allocating all memory before the checks.
_LIMITS = {"num_hidden_layers": 1_000, "max_position_embeddings": 2**20, "vocab_size": 2**24, "hidden_size": 2**16}


def to_hugging_face(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The content of `config.json`, without the ids of special tokens: those come from the tokenizer."""
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
    """The `ModelConfig` of a `config.json` with this `content`; `where` names the file in messages.

    Raises FormatError listing every field that is missing, out of range, or not a feature of Llama 2.
    """
    stored = {**_DEFAULTS, **content}
    if stored["num_key_value_heads"] is None:
        stored["num_key_value_heads"] = 0
    if stored.get("model_type") != "llama":
        raise FormatError(f"{where}: model_type is {stored.get('model_type')!r}; only 'llama' is read")
    problems = [
        f"{key} is {_shown(stored[key])}; only {allowed[0]!r} is read"
        for key, allowed in _REQUIRED.items()
        if stored.get(key) is not None and stored[key] not in allowed
    ]
    stored["rope_theta"], scaled = _rope_theta(stored)
    problems += scaled
    missing = [key for key in FIELDS.values() if key not in stored]
    if missing:
        problems.append(f"it has no {', '.join(missing)}")
    problems += [
        f"{key} is {stored[key]}; at most {limit} is read"
        for key, limit in _LIMITS.items()
        if isinstance(stored.get(key), int) and stored[key] > limit
    ]
    if not missing:
        config, invalid = _validated({ours: stored[theirs] for ours, theirs in FIELDS.items()})
        problems += invalid
        if config is not None:
            if stored.get("head_dim") not in (None, config.head_size):
                problems.append(f"head_dim is {_shown(stored['head_dim'])}; only hidden_size / heads is read")
            if not problems:
                return config
    raise FormatError(f"{where}: {'; '.join(problems)}")


def end_ids(config: Mapping[str, Any], generation: Mapping[str, Any] | None, where: str) -> frozenset[int]:
    """Ids of the tokens that end a text, from `generation_config.json` if it exists, else from `config.json`.

    The rule is that of transformers. `eos_token_id` may be null, one id, or a list; negative ids are ignored.
    Raises FormatError for anything else.
    """
    named = (config if generation is None else generation).get("eos_token_id")
    listed = named if isinstance(named, list) else [named]
    for id in listed:
        if id is not None and type(id) is not int:
            raise FormatError(f"{where}: eos_token_id is {_shown(named)}; expected a token id or a list of them")
    return frozenset(id for id in listed if id is not None and id >= 0)


def _rope_theta(stored: Mapping[str, Any]) -> tuple[object, list[str]]:
    """The base of the rotary frequencies, from either key, and one line for each unsupported scaling."""
    theta = stored["rope_theta"]
    problems = []
    for key in ("rope_scaling", "rope_parameters"):
        parameters = stored.get(key) or {}
        if not isinstance(parameters, dict):
            problems.append(f"{key} is {_shown(parameters)}; expected an object")
            continue
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind != "default" or parameters.get("partial_rotary_factor", 1) != 1:
            problems.append(f"{key} changes the rotary frequencies ({_shown(kind, str)}); only plain ones are read")
        theta = parameters.get("rope_theta", theta)
    return theta, problems


def _validated(values: dict[str, Any]) -> tuple[ModelConfig | None, list[str]]:
    """The config, or None and one line for each invalid field."""
    try:
        return ModelConfig(**values), []
    except ValidationError as error:
        return None, [
            ": ".join([*(FIELDS.get(str(part), str(part)) for part in each["loc"]), _reason(each["msg"])])
            for each in error.errors()
        ]


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")


def _shown(value: object, show: Callable[[object], str] = repr) -> str:
    """`value` as one line of at most 60 characters."""
    text = show(value).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:60]}…"
