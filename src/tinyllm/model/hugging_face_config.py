"""Translates between `ModelConfig` and Hugging Face's `config.json`, and refuses models that are not a Llama.

transformers 4 and 5 store the rotary frequencies and the dtype under different keys. Both keys are written; either is
read. If a file has both `rope_scaling` and `rope_parameters`, the first applies, as in transformers.
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
    "head_size": "head_dim",
    "context_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "tie_embeddings": "tie_word_embeddings",
}
"""Field of `ModelConfig` -> key of `config.json`. Dropout has none: it belongs to a training run."""
ROPE_FIELDS = {
    "rope_factor": "factor",
    "rope_low_freq_factor": "low_freq_factor",
    "rope_high_freq_factor": "high_freq_factor",
    "rope_original_context": "original_max_position_embeddings",
}
"""Field of `ModelConfig` -> key of `rope_scaling` or `rope_parameters`."""
_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": tuple(ROPE_FIELDS.values()),
}
"""Type of scaling -> its keys."""
_ROPE_OBJECTS = ("rope_scaling", "rope_parameters")
_CONTEXT = "original_max_position_embeddings"

# The defaults of transformers for keys that a config.json omits.
_DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "num_key_value_heads": 0,
    "head_dim": 0,
    "attention_bias": False,
    "mlp_bias": False,
    "max_position_embeddings": 2048,
}
_NULLABLE = ("num_key_value_heads", "head_dim", "attention_bias", "mlp_bias")
"""Keys for which null means the default."""
# Features of the Llama family that this model lacks; each key must be absent, null, or one of these values.
_REQUIRED: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "quantization_config": (None,),
}
# Far above any model of this kind. They stop a damaged number from allocating all memory before the checks.
_LIMITS = {
    "num_hidden_layers": 1_000,
    "max_position_embeddings": 2**20,
    "vocab_size": 2**24,
    "hidden_size": 2**16,
    "head_dim": 2**12,
}


def to_hugging_face(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The content of `config.json`, without the ids of special tokens: those come from the tokenizer."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        **_rope_objects(config),
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def from_hugging_face(content: Mapping[str, Any], where: str) -> ModelConfig:
    """The `ModelConfig` of a `config.json` with this `content`; `where` names the file in messages.

    Raises FormatError listing every field that is missing, out of range, or not a feature of this model.
    """
    stored = {**_DEFAULTS, **content}
    stored |= {key: _DEFAULTS[key] for key in _NULLABLE if stored[key] is None}
    if stored.get("model_type") != "llama":
        raise FormatError(f"{where}: model_type is {stored.get('model_type')!r}; only 'llama' is read")
    problems = [
        f"{key} is {_shown(stored[key])}; only {allowed[0]!r} is read"
        for key, allowed in _REQUIRED.items()
        if stored.get(key) is not None and stored[key] not in allowed
    ]
    rope, unsupported = _read_rope(stored)
    problems += unsupported
    missing = [key for key in FIELDS.values() if key not in stored]
    if missing:
        problems.append(f"it has no {', '.join(missing)}")
    problems += [
        f"{key} is {stored[key]}; at most {limit} is read"
        for key, limit in _LIMITS.items()
        if isinstance(stored.get(key), int) and stored[key] > limit
    ]
    if not missing:
        config, invalid = _validated({ours: stored[theirs] for ours, theirs in FIELDS.items()} | rope)
        problems += invalid
        if config is not None and not problems:
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


def _rope_objects(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """The objects of `config.json` for rotary frequencies, with the keys of transformers 5 and 4.

    transformers 5 reads `rope_parameters`. transformers 4 reads `rope_scaling`, and needs it only for scaled
    frequencies.
    """
    kind = "default" if config.rope_scaling == "none" else config.rope_scaling
    values = {theirs: getattr(config, ours) for ours, theirs in ROPE_FIELDS.items()}
    scaling = {"rope_type": kind, **{key: values[key] for key in _ROPE_KEYS[kind]}}
    objects = {"rope_parameters": {**scaling, "rope_theta": config.rope_theta}}
    return objects if kind == "default" else {"rope_scaling": scaling, **objects}


def _read_rope(stored: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The rotary fields of `ModelConfig` from either object, and one line for each unsupported value."""
    problems = [
        f"{key} is {_shown(stored[key])}; expected an object"
        for key in _ROPE_OBJECTS
        if stored.get(key) and not isinstance(stored[key], dict)
    ]
    if problems:
        return {}, problems
    key = next((key for key in _ROPE_OBJECTS if stored.get(key)), "rope_parameters")
    parameters: dict[str, Any] = stored.get(key) or {}
    fields = {"rope_theta": parameters.get("rope_theta", stored["rope_theta"])}
    for place in (stored, parameters):
        if place.get("partial_rotary_factor") not in (None, 1):
            problems.append(f"partial_rotary_factor is {_shown(place['partial_rotary_factor'])}; only 1 is read")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    nested = any(isinstance(each, dict) for each in parameters.values())
    if nested or not isinstance(kind, str) or kind not in _ROPE_KEYS:
        shown = "by layer" if nested else _shown(kind, str)
        readable = ", ".join(_ROPE_KEYS)
        return fields, [*problems, f"{key} changes the rotary frequencies ({shown}); the types {readable} are read"]
    values = {**parameters, _CONTEXT: _original_context(stored, parameters)}
    missing = [name for name in _ROPE_KEYS[kind] if values.get(name) is None]
    if missing:
        return fields, [*problems, f"{key} of type {kind} has no {', '.join(missing)}"]
    scaling = {ours: values[theirs] for ours, theirs in ROPE_FIELDS.items() if theirs in _ROPE_KEYS[kind]}
    return {**fields, "rope_scaling": "none" if kind == "default" else kind, **scaling}, problems


def _original_context(stored: Mapping[str, Any], parameters: Mapping[str, Any]) -> object:
    """The context before the scaling, from the first place that transformers looks into."""
    for place in (stored, parameters):
        if place.get(_CONTEXT) is not None:
            return place[_CONTEXT]
    return stored["max_position_embeddings"]


def _validated(values: dict[str, Any]) -> tuple[ModelConfig | None, list[str]]:
    """The config, or None and one line for each invalid field."""
    try:
        return ModelConfig(**values), []
    except ValidationError as error:
        return None, [
            ": ".join(
                [*((FIELDS | ROPE_FIELDS).get(str(part), str(part)) for part in each["loc"]), _reason(each["msg"])]
            )
            for each in error.errors()
        ]


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")


def _shown(value: object, show: Callable[[object], str] = repr) -> str:
    """`value` as one line of at most 60 characters."""
    text = show(value).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:60]}…"
