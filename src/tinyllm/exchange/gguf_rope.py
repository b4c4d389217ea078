"""Converts the scaling of rotary frequencies to and from GGUF: a factor, or a divisor for each frequency.

llama.cpp stores linear scaling as `rope.scaling.factor`. It stores the scaling of Llama 3 as the tensor
`rope_freqs.weight` alone: the plain frequency divided by the scaled one. The settings behind the divisors are written
as keys of tinyllm, which llama.cpp ignores. Without these keys, the reader tries the settings of Meta's models.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError
from tinyllm.exchange.gguf_blocks import Float32Array
from tinyllm.exchange.gguf_file import Value, ValueType
from tinyllm.model.rope_scaling import scale_frequencies

DIVISORS = "rope_freqs.weight"
LLAMA3_KEYS = {
    "tinyllm.rope.factor": "rope_factor",
    "tinyllm.rope.low_freq_factor": "rope_low_freq_factor",
    "tinyllm.rope.high_freq_factor": "rope_high_freq_factor",
    "tinyllm.rope.original_context": "rope_original_context",
}
"""Key of the metadata -> field of `ModelConfig`."""
META_CONTEXTS = (8192, *(2**power for power in range(4, 21)))
"""Original contexts to try with the usual low and high factors; Llama 3.1 and 3.2 have the first."""
_TOLERANCE = 1e-5


def scaling_metadata(config: ModelConfig, prefix: str) -> dict[str, tuple[ValueType, object]]:
    """The metadata of `config`'s scaling; keys of llama.cpp begin with `prefix`."""
    if config.rope_scaling == "linear":
        return {
            f"{prefix}rope.scaling.type": (ValueType.STRING, "linear"),
            f"{prefix}rope.scaling.factor": (ValueType.FLOAT32, config.rope_factor),
        }
    if config.rope_scaling == "llama3":
        return {key: (ValueType.FLOAT64, float(getattr(config, field))) for key, field in LLAMA3_KEYS.items()}
    return {}


def divisors(config: ModelConfig) -> Float32Array:
    """The plain frequencies of `config` divided by the scaled ones: (head_size / 2,)."""
    plain: Any = config.rope_theta ** -(np.arange(0, config.head_size, 2) / config.head_size)
    found: Float32Array = (plain / scale_frequencies(plain, config)).astype(np.float32)
    return found


def read_linear(values: Mapping[str, Value], path: Path) -> dict[str, Any]:
    """The fields of `ModelConfig` for linear scaling; `values` has the keys of the architecture without its name.

    As in llama.cpp, the type is linear unless it is given, and a factor of 0 means none. Raises FormatError for another
    type or an impossible factor.
    """
    kind = values.get("rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise FormatError(f"{path}: llama.rope.scaling.type is {kind!r}, expected 'none' or 'linear'")
    for key in ("rope.scaling.factor", "rope.scale_linear"):
        factor = values.get(key, 0)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < 2**20:
            raise FormatError(f"{path}: llama.{key} is {factor!r}, expected a number above 0")
        if factor not in (0, 1) and kind == "linear":
            return {"rope_scaling": "linear", "rope_factor": float(str(np.float32(factor)))}
    return {}


def read_llama3(found: Float32Array, config: ModelConfig, metadata: Mapping[str, Value], path: Path) -> ModelConfig:
    """`config` with the scaling of Llama 3 whose divisors are `found`.

    Raises FormatError if no known settings give them.
    """
    if found.shape != (config.head_size // 2,):
        raise FormatError(f"{path}: {DIVISORS} is {list(found.shape)}, expected [{config.head_size // 2}]")
    if config.rope_scaling != "none":
        raise FormatError(f"{path} has {DIVISORS} beside rope.scaling.factor; one scaling is read, not two")
    if np.array_equal(found, np.ones_like(found)):
        return config
    for settings in _candidates(found, metadata):
        try:
            scaled = ModelConfig(**(config.model_dump() | {"rope_scaling": "llama3"} | settings))
        except ValueError:
            continue  # numbers out of range give no divisors
        if np.allclose(divisors(scaled), found, rtol=_TOLERANCE, atol=0):
            return scaled
    raise FormatError(
        f"{path}: {DIVISORS} is not a scaling of Llama 3 with low_freq_factor 1 and high_freq_factor 4, "
        "which tinyllm reads; convert the original model with tinyllm"
    )


def _candidates(found: Float32Array, metadata: Mapping[str, Value]) -> list[dict[str, Any]]:
    """Settings to try: those of the metadata, or else those of Meta's models with the largest divisor as factor."""
    stored = {field: metadata[key] for key, field in LLAMA3_KEYS.items() if key in metadata}
    if len(stored) == len(LLAMA3_KEYS):
        return [stored]
    factor = float(str(found.max()))
    return [{"rope_factor": factor, "rope_original_context": context} for context in META_CONTEXTS]
