"""Reads and writes GGUF files of architecture llama with their tokenizer, and writes an Ollama Modelfile.

Files are written like those of llama.cpp's converter. Query and key rows are interleaved, and norms are in float32 for
any type of matrix. Tied embeddings have no `output.weight`. Reading refuses an unknown metadata key of the architecture
by name, because it may change the computation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError
from tinyllm.exchange import gguf_byte_level, gguf_file
from tinyllm.exchange.foreign import ForeignModel, check_tensors, make_config
from tinyllm.exchange.gguf_blocks import Float32Array, TensorType, fits
from tinyllm.exchange.gguf_byte_level import byte_level_metadata, read_byte_level
from tinyllm.exchange.gguf_file import Value, ValueType
from tinyllm.exchange.gguf_rope import DIVISORS, divisors, read_linear, read_llama3, scaling_metadata
from tinyllm.exchange.gguf_tokenizer import read_tokenizer, tokenizer_metadata
from tinyllm.exchange.gguf_writer import write_contents
from tinyllm.exchange.layout import GGUF, halve_heads, interleave_heads
from tinyllm.tokenizer.byte_level import ByteLevelTokenizer
from tinyllm.tokenizer.codec import Tokenizer

ARCHITECTURE = "llama"
FILE_TYPES = {TensorType.F32: 0, TensorType.F16: 1, TensorType.Q8_0: 7, TensorType.BF16: 32}
"""The types that can be written, with llama.cpp's number for a file of mostly this type."""
_QUANTIZATION_VERSION = 2
_NUMBER_KEYS = {
    "block_count": "num_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_heads",
    "context_length": "context_length",
}
_KNOWN_KEYS = {
    *_NUMBER_KEYS,
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "attention.key_length",
    "attention.value_length",
    "attention.causal",
    "expert_count",
    "expert_used_count",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "tensor_data_layout",
    "vocab_size",
}


def read_gguf(path: Path) -> ForeignModel:
    """The model in the GGUF file `path`.

    Raises FormatError if the file is damaged, or has a feature that tinyllm's Llama does not support.
    """
    with path.open("rb") as file:
        contents = gguf_file.read_contents(file, path)
        config = _read_config(contents, path)
        tensors = {
            GGUF.to_hugging_face(name): gguf_file.read_tensor(file, entry, path)
            for name, entry in contents.tensors.items()
        }
    found = tensors.pop(DIVISORS, None)
    if found is not None:
        config = read_llama3(found, config, contents.metadata, path)
    check_tensors(config, tensors, path)
    tokenizer = _read_tokenizer(contents.metadata, path)
    if tokenizer is not None and tokenizer.vocab_size != config.vocab_size:
        raise FormatError(
            f"{path}: tokenizer.ggml.tokens has {tokenizer.vocab_size} tokens, "
            f"token_embd.weight has {config.vocab_size} rows"
        )
    types = sorted({entry.type.name for entry in contents.tensors.values() if len(entry.shape) > 1})
    source = f"GGUF version {contents.version} ({', '.join(types)})"
    ends = None if tokenizer is None else tokenizer.end_ids
    return ForeignModel(config, halve_heads(tensors, config), tokenizer, source, ends)


def write_gguf(file: IO[bytes], model: ForeignModel, type: TensorType, name: str) -> None:
    """Writes `model` as a complete GGUF file with matrices of `type`; tools display `name` as the model's name.

    Raises InputError if a value is too large for the type, or if llama.cpp cannot run the tokenizer.
    """
    if model.tokenizer is None:
        raise InputError(f"{model.source} has no tokenizer, which a GGUF file includes; give one")
    metadata = _model_metadata(model.config, type, name) | _tokenizer_metadata(model.tokenizer)
    lines = [
        (GGUF.from_hugging_face(name), values, stored_type(values, type))
        for name, values in interleave_heads(model.tensors, model.config).items()
    ]
    if model.config.rope_scaling == "llama3":
        lines.append((DIVISORS, divisors(model.config), TensorType.F32))
    write_contents(file, metadata, lines)


def _tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, tuple[ValueType, object]]:
    """The metadata of a tokenizer of either kind."""
    if isinstance(tokenizer, ByteLevelTokenizer):
        return byte_level_metadata(tokenizer)
    return tokenizer_metadata(tokenizer)


def _read_tokenizer(metadata: Mapping[str, Value], path: Path) -> Tokenizer | None:
    """The tokenizer of either kind in the metadata; None if there is none."""
    if metadata.get("tokenizer.ggml.model") == gguf_byte_level.MODEL:
        return read_byte_level(metadata, path)
    return read_tokenizer(metadata, path)


def stored_type(values: Float32Array, type: TensorType) -> TensorType:
    """The type of one tensor in a file of mostly `type`.

    Norms are float32. A matrix whose rows are not a multiple of the block becomes F16, as in llama.cpp's quantizer.
    """
    if values.ndim == 1:
        return TensorType.F32
    return type if fits(type, values.shape[-1]) else TensorType.F16


def export_notes(model: ForeignModel, type: TensorType) -> list[str]:
    """One line per difference between `model` and a file of mostly `type`, as llama.cpp reads it."""
    notes = []
    half = [name for name, values in model.tensors.items() if values.ndim > 1 and stored_type(values, type) != type]
    if half:
        width = model.tensors[half[0]].shape[-1]
        notes.append(
            f"{len(half)} tensors stay F16, because rows of {width} are not whole {type.name} blocks of 32: {half[0]} …"
        )
    if model.config.rope_scaling == "dynamic":
        notes.append(
            f"the format cannot store dynamic RoPE scaling, which changes nothing up to {model.config.context_length} "
            "tokens"
        )
    if model.tokenizer is not None and model.tokenizer.proto.remove_extra_whitespaces:
        notes.append(
            "llama.cpp keeps runs of spaces, which this tokenizer collapses: texts with such runs get other ids there"
        )
    return notes


def modelfile(gguf_name: str, config: ModelConfig) -> str:
    """The text of an Ollama Modelfile for the GGUF file `gguf_name` in the same folder."""
    return (
        f"# ollama create my-model -f Modelfile && ollama run my-model 'Once upon a time'\n"
        f"FROM ./{gguf_name}\n"
        "# The model continues a text; it was not trained to chat, so the prompt has no template.\n"
        'TEMPLATE """{{ .Prompt }}"""\n'
        f"PARAMETER num_ctx {config.context_length}\n"
    )


def _model_metadata(config: ModelConfig, type: TensorType, name: str) -> dict[str, tuple[ValueType, object]]:
    numbers = {
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "rope.dimension_count": config.head_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "vocab_size": config.vocab_size,
    }
    if not config.has_plain_heads:
        numbers |= {"attention.key_length": config.head_size, "attention.value_length": config.head_size}
    return {
        "general.architecture": (ValueType.STRING, ARCHITECTURE),
        "general.name": (ValueType.STRING, name),
        "general.alignment": (ValueType.UINT32, gguf_file.ALIGNMENT),
        "general.file_type": (ValueType.UINT32, FILE_TYPES[type]),
        "general.quantization_version": (ValueType.UINT32, _QUANTIZATION_VERSION),
        **{f"{ARCHITECTURE}.{key}": (ValueType.UINT32, number) for key, number in numbers.items()},
        f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon": (ValueType.FLOAT32, config.norm_eps),
        f"{ARCHITECTURE}.rope.freq_base": (ValueType.FLOAT32, config.rope_theta),
        **scaling_metadata(config, f"{ARCHITECTURE}."),
    }


def _read_config(contents: gguf_file.Contents, path: Path) -> ModelConfig:
    """The config from metadata and tensor table. Raises FormatError for a feature that tinyllm does not support."""
    metadata = contents.metadata
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise FormatError(f"{path}: general.architecture is {architecture!r}, expected {ARCHITECTURE!r}")
    prefix = f"{ARCHITECTURE}."
    values = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    unknown = sorted(set(values) - _KNOWN_KEYS)
    if unknown:
        raise FormatError(f"{path}: {prefix}{unknown[0]} is {values[unknown[0]]!r}, which tinyllm does not support")
    embedding = contents.tensors.get("token_embd.weight")
    if embedding is None:
        raise FormatError(f"{path} has no tensor token_embd.weight")
    sizes = {field: _number(values, key, path) for key, field in _NUMBER_KEYS.items()}
    if "attention.key_length" in values:
        sizes["head_size"] = _number(values, "attention.key_length", path)
    config = make_config(
        path,
        **sizes,
        vocab_size=embedding.shape[0],
        num_kv_heads=_number(values, "attention.head_count_kv", path, sizes["num_heads"]),
        norm_eps=_real(values, "attention.layer_norm_rms_epsilon", path),
        rope_theta=_real(values, "rope.freq_base", path, 10_000.0),
        attention_bias="blk.0.attn_q.bias" in contents.tensors,
        mlp_bias="blk.0.ffn_gate.bias" in contents.tensors,
        tie_embeddings="output.weight" not in contents.tensors,
        **read_linear(values, path),
    )
    _check_constants(values, config, path)
    return config


def _check_constants(values: Mapping[str, Value], config: ModelConfig, path: Path) -> None:
    """Raises FormatError for a setting of GGUF with another value than the one that tinyllm's Llama has."""
    fixed: dict[str, tuple[Value, ...]] = {
        "attention.value_length": (config.head_size,),
        "attention.causal": (True,),
        "expert_count": (0,),
        "expert_used_count": (0,),
        "rope.dimension_count": (config.head_size,),
        "tensor_data_layout": ("Meta AI original pth",),
        "vocab_size": (config.vocab_size,),
    }
    for key, allowed in fixed.items():
        if key in values and (not isinstance(values[key], int | float | str) or values[key] not in allowed):
            raise FormatError(f"{path}: {ARCHITECTURE}.{key} is {values[key]!r}, expected {allowed[0]!r}")


def _number(values: Mapping[str, Value], key: str, path: Path, default: int | None = None) -> int:
    value = values.get(key, default)
    if type(value) is not int or not 1 <= value < 2**32:
        raise FormatError(f"{path}: {ARCHITECTURE}.{key} is {value!r}, expected a whole number above 0")
    return value


def _real(values: Mapping[str, Value], key: str, path: Path, default: float | None = None) -> float:
    """A float32 of the file as its shortest decimal: 1e-05, not 9.999999747378752e-06."""
    value = values.get(key, default)
    if not isinstance(value, float):
        raise FormatError(f"{path}: {ARCHITECTURE}.{key} is {value!r}, expected a real number")
    return float(str(np.float32(value)))
