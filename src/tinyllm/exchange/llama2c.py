"""Reads and writes llama2.c's `.bin` models: version 0 (float32), 1 (float32 after a magic number), 2 (int8, Q8_0).

A file is a header and then every tensor in a fixed order, without names or a table; `docs/formats.md` has the offsets.
The only check is whether the header's numbers fit the file's size. The tokenizer is in another file: `tokenizer_bin`.

The layout is that of `export.py`, `run.c` and `runq.c` in karpathy/llama2.c.
"""

import struct
from dataclasses import dataclass
from math import gcd, prod
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.foreign import ForeignModel, Tensors, check_tensors, make_config
from tinyllm.exchange.layout import HUGGING_FACE_LAYER, halve_heads, interleave_heads
from tinyllm.model.size import EMBEDDING, OUTPUT, parameter_shapes

Version = Literal[0, 1, 2]

MAGIC = 0x616B3432  # "ak42"
HEADER_BYTES = 256
LARGEST_GROUP = 64
FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
FIXED = {"norm_eps": 1e-5, "rope_theta": 10_000.0}
"""Constants in the C programs, which no file stores."""

_LEGACY = struct.Struct("<7i")
_HEADER = struct.Struct("<Ii7iB")
_GROUP_SIZE = struct.Struct("<i")
_FREQUENCIES = ("freqs_cos", "freqs_sin")  # only in version 0, and no program reads them


@dataclass(frozen=True)
class Header:
    """The numbers at the start of a file, with llama2.c's names."""

    version: int
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    max_seq_len: int
    tied: bool
    group_size: int = 0
    """Number of values that share a scale; only in version 2."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the header in the file."""
        return HEADER_BYTES if self.version else _LEGACY.size

    def payload_bytes(self) -> int:
        """Bytes after the header, by arithmetic alone because the numbers may be absurd."""
        head_size = self.dim // self.n_heads
        norms = (2 * self.n_layers + 1) * self.dim
        attention = 2 * self.dim**2 + 2 * self.dim * head_size * self.n_kv_heads
        layers = self.n_layers * (attention + 3 * self.dim * self.hidden_dim)
        matrices = layers + self.vocab_size * self.dim * (1 if self.tied else 2)
        if self.version == 2:
            return 4 * norms + matrices + 4 * (matrices // self.group_size)
        frequencies = self.max_seq_len * head_size if self.version == 0 else 0
        return 4 * (norms + matrices + frequencies)


def read_bin(path: Path) -> ForeignModel:
    """The model in a `.bin` file of version 0, 1 or 2, without a tokenizer. Raises FormatError if it is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = _read_header(file.read(HEADER_BYTES), path)
        config = _to_config(header, path)
        if size != header.num_bytes + header.payload_bytes():
            raise FormatError(
                f"{path} has {size} bytes, but a version {header.version} header with "
                + ", ".join(f"{field} {getattr(header, field)}" for field in FIELDS)
                + f" makes {header.num_bytes + header.payload_bytes()}: it was cut off, or is not a llama2.c model"
            )
        tensors = _read_tensors(file, header, config, path)
    tensors = halve_heads(tensors, config)
    check_tensors(config, tensors, path)
    return ForeignModel(config, tensors, None, f"llama2.c .bin version {header.version}")


def write_bin(file: IO[bytes], model: ForeignModel, version: Version) -> None:
    """Writes `model` as llama2.c's `export.py` does. Raises InputError if the format cannot store the model."""
    config = model.config
    check_expressible(config)
    tensors = interleave_heads(model.tensors, config)
    if version == 0:
        tensors |= dict(zip(_FREQUENCIES, _frequency_tables(config), strict=True))
    group_size = largest_group(config) if version == 2 else 0
    file.write(_header_bytes(config, version, group_size))
    for name, shape in _tensors_in_order(config, version):
        tensor = tensors[name].astype("<f4", copy=False)
        if version == 2 and len(shape) == 2:
            values, scales = quantize(tensor, group_size)
            file.write(values.tobytes() + scales.tobytes())
        else:
            file.write(tensor.tobytes())


def check_expressible(config: ModelConfig) -> None:
    """Raises InputError for a feature, a norm epsilon or a rotary base that the C programs do not have."""
    check_is_plain(config, "llama2.c's .bin files")
    for field, value in FIXED.items():
        if getattr(config, field) != value:
            raise InputError(
                f"the model has {field} {getattr(config, field)}, and llama2.c's .bin files always mean {value}; "
                "export it as gguf or safetensors"
            )


def check_is_plain(config: ModelConfig, files: str) -> None:
    """Raises InputError naming the first option of `config` that no file of llama2.c has; `files` is for messages."""
    options = {
        f"head_size {config.head_size}, not hidden_size / num_heads": not config.has_plain_heads,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        f"rope_scaling {config.rope_scaling}": config.rope_scaling not in ("none", "dynamic"),
    }
    for option, is_set in options.items():
        if is_set:
            raise InputError(f"the model has {option}, which {files} cannot store; export it as gguf or safetensors")


def largest_group(config: ModelConfig) -> int:
    """The largest group of values that can share a scale: 64 or a smaller power of two.

    Groups must divide every row: `export.py` only requires whole tensors, but `runq.c` multiplies row by row.
    """
    group_size = LARGEST_GROUP
    while gcd(config.hidden_size, config.intermediate_size) % group_size:
        group_size //= 2
    return group_size


def quantize(tensor: NDArray[np.float32], group_size: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Q8_0: int8 values in -127 .. 127, and the float32 scale max|group| / 127 of each `group_size` values."""
    groups = tensor.reshape(-1, group_size)
    scales = np.abs(groups).max(axis=1) / np.float32(127)
    # A group of zeros has scale 0; dividing by 1 keeps the zeros.
    values = np.rint(groups / np.where(scales == 0, np.float32(1), scales)[:, None])
    return values.astype(np.int8), scales.astype("<f4")


def _read_header(start: bytes, path: Path) -> Header:
    """The header, with each field checked against its range; `start` holds the file's first bytes."""
    if len(start) < _LEGACY.size:
        raise FormatError(f"{path} has {len(start)} bytes, expected a llama2.c header of at least {_LEGACY.size}")
    if int.from_bytes(start[:4], "little") != MAGIC:
        fields = dict(zip(FIELDS, _LEGACY.unpack_from(start), strict=True))
        tied = fields["vocab_size"] > 0
        header = Header(version=0, tied=tied, **{**fields, "vocab_size": abs(fields["vocab_size"])})
    else:
        if len(start) < HEADER_BYTES:
            raise FormatError(f"{path} has {len(start)} bytes, expected a header of {HEADER_BYTES}")
        _, version, *numbers, tied = _HEADER.unpack_from(start)
        if version not in (1, 2):
            raise FormatError(f"{path}: version is {version}, expected 1 or 2")
        if tied not in (0, 1):
            raise FormatError(f"{path}: shared_classifier is {tied}, expected 0 or 1")
        (group_size,) = _GROUP_SIZE.unpack_from(start, _HEADER.size) if version == 2 else (0,)
        fields = dict(zip(FIELDS, numbers, strict=True))
        header = Header(version=version, tied=bool(tied), group_size=group_size, **fields)
    for field in (*FIELDS, *(["group_size"] if header.version == 2 else [])):
        if getattr(header, field) < 1:
            raise FormatError(f"{path}: {field} is {getattr(header, field)}, expected at least 1")
    return header


def _to_config(header: Header, path: Path) -> ModelConfig:
    config = make_config(
        path,
        vocab_size=header.vocab_size,
        hidden_size=header.dim,
        intermediate_size=header.hidden_dim,
        num_layers=header.n_layers,
        num_heads=header.n_heads,
        num_kv_heads=header.n_kv_heads,
        context_length=header.max_seq_len,
        tie_embeddings=header.tied,
        **FIXED,
    )
    # Every other matrix has a multiple of this number of values.
    smallest = gcd(header.dim * config.head_size, header.dim * header.hidden_dim, header.dim * header.vocab_size)
    if header.version == 2 and smallest % header.group_size:
        raise FormatError(f"{path}: group_size is {header.group_size}, which does not divide every matrix")
    return config


def _tensors_in_order(config: ModelConfig, version: int) -> list[tuple[str, tuple[int, ...]]]:
    """The (name, shape) pairs of the tensors, in the file's order."""
    shapes: dict[str, tuple[int, ...]] = parameter_shapes(config)
    shapes |= dict.fromkeys(_FREQUENCIES, (config.context_length, config.head_size // 2))

    def for_each_layer(*names: str) -> list[str]:
        return [f"{HUGGING_FACE_LAYER}{layer}.{name}" for name in names for layer in range(config.num_layers)]

    attention_norms = for_each_layer("input_layernorm.weight")
    feed_forward_norms = for_each_layer("post_attention_layernorm.weight")
    attention = for_each_layer(*(f"self_attn.{name}_proj.weight" for name in "qkvo"))
    feed_forward = for_each_layer(*(f"mlp.{name}_proj.weight" for name in ("gate", "down", "up")))
    final_norm = "model.norm.weight"
    if version == 0:
        names = [EMBEDDING, *attention_norms, *attention, *feed_forward_norms, *feed_forward, final_norm, *_FREQUENCIES]
    else:
        names = [*attention_norms, *feed_forward_norms, final_norm, EMBEDDING, *attention, *feed_forward]
    if not config.tie_embeddings:
        names.append(OUTPUT)
    return [(name, shapes[name]) for name in names]


def _read_tensors(file: IO[bytes], header: Header, config: ModelConfig, path: Path) -> Tensors:
    """Every tensor in the file's row order; the caller has checked the file's size."""
    tensors: Tensors = {}
    file.seek(header.num_bytes)
    for name, shape in _tensors_in_order(config, header.version):
        count = prod(shape)
        if header.version == 2 and len(shape) == 2:
            values = _read_numbers(file, "<i1", count, path).reshape(-1, header.group_size)
            scales = _read_numbers(file, "<f4", count // header.group_size, path)
            tensors[name] = (values * scales[:, None]).reshape(shape)
        else:
            tensors[name] = _read_numbers(file, "<f4", count, path).astype(np.float32, copy=False).reshape(shape)
    for name in _FREQUENCIES:
        tensors.pop(name, None)
    return tensors


def _read_numbers(file: IO[bytes], dtype: str, count: int, path: Path) -> NDArray[Any]:
    numbers = np.fromfile(file, dtype=dtype, count=count)
    if len(numbers) != count:
        raise FormatError(f"{path} ended while it was read: {len(numbers)} of {count} numbers of a tensor were left")
    return numbers


def _header_bytes(config: ModelConfig, version: Version, group_size: int) -> bytes:
    sizes = (
        config.hidden_size,
        config.intermediate_size,
        config.num_layers,
        config.num_heads,
        config.num_kv_heads,
    )
    if version == 0:
        # In this version a negative vocabulary size marks a stored output projection.
        return _LEGACY.pack(*sizes, config.vocab_size * (1 if config.tie_embeddings else -1), config.context_length)
    tied = int(config.tie_embeddings)
    header = _HEADER.pack(MAGIC, version, *sizes, config.vocab_size, config.context_length, tied)
    if version == 2:
        header += _GROUP_SIZE.pack(group_size)
    return header.ljust(HEADER_BYTES, b"\0")


def _frequency_tables(config: ModelConfig) -> list[NDArray[np.float32]]:
    """Cosines and sines of the rotary angles, each (context, head_size / 2)."""
    # The tables come from torch, as in llama2.c: NumPy rounds some cosines differently, which changes the file's bytes.
    from tinyllm.model.rope import rotary_tables

    return [table.numpy() for table in rotary_tables(config.context_length, config.head_size, config.rope_theta)]
