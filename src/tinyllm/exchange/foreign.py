"""The result of every reader of another tool's format, and the checks that all readers share.

The weights are NumPy arrays, so this module needs no torch. A reader checks each number of a file against the file's
size before using it. `check_tensors` guarantees a model with exactly the shapes of its config.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError
from tinyllm.model.size import parameter_shapes

if TYPE_CHECKING:
    from tinyllm.tokenizer.codec import Tokenizer

Tensors = dict[str, NDArray[np.float32]]

LONGEST_CONTEXT = 131_072
"""Limit in tokens. In most formats no file size confirms the context length, which sets the size of the KV cache."""
NAMES_SHOWN = 4
NAME_LENGTH = 120


@dataclass(frozen=True)
class ForeignModel:
    """A model from another tool's file, with Hugging Face's names and half-split RoPE layout."""

    config: ModelConfig
    tensors: Tensors
    """Float32, dequantized if the file is quantized; without `lm_head.weight` if the embeddings are tied."""
    tokenizer: "Tokenizer | None"
    source: str
    """The format in messages, such as `llama2.c .bin version 0`."""
    end_ids: frozenset[int] | None = None
    """The end tokens in the model's files; None means the tokenizer's BOS and EOS."""
    notes: tuple[str, ...] = ()
    """One line for each value in the model's files that is left out."""


def make_config(path: Path, **values: Any) -> ModelConfig:
    """A config from the numbers in the file `path`. Raises FormatError for the first impossible number."""
    context = values.get("context_length", 0)
    if isinstance(context, int) and context > LONGEST_CONTEXT:
        raise FormatError(f"{path}: context_length is {context}, expected at most {LONGEST_CONTEXT}")
    try:
        return ModelConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        found = f"{field} is {first['input']!r}: " if field else ""
        raise FormatError(f"{path}: {found}{first['msg'].removeprefix('Value error, ')}") from None


def check_tensors(config: ModelConfig, tensors: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """Raises FormatError unless `tensors` has exactly the names and shapes of `config`, and finite values."""
    if config.num_layers > len(tensors):
        # This check precedes any list of layers, because a file may claim any 32-bit number of layers.
        raise FormatError(f"{path}: num_layers is {config.num_layers}, but there are only {len(tensors)} tensors")
    expected = parameter_shapes(config)
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshaped = [
        f"{name} is {list(tensors[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    if any(found.values()):
        differences = "; ".join(f"{kind}: {_shorten(names)}" for kind, names in found.items() if names)
        raise FormatError(f"{path} does not hold the model of its config; {differences}")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            bad = tensor.size - np.count_nonzero(np.isfinite(tensor))
            raise FormatError(f"{path}: {name} has {bad} of {tensor.size} values that are not finite; it is damaged")


def _shorten(names: list[str]) -> str:
    """The first names, printable and shortened to a line, and the number of further names."""
    shown = [name[:NAME_LENGTH] if name.isprintable() else repr(name[:NAME_LENGTH]) for name in names[:NAMES_SHOWN]]
    more = len(names) - NAMES_SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
