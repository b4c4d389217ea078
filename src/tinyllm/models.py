"""From a path to a model, whatever it is the path of: ours, a run's, or another tool's file.

The one place that knows both `model_dir` and `exchange`. Commands and `tinyllm.load` come here; the rooms do not.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tinyllm.config import WeightsKind
from tinyllm.errors import ConfigError
from tinyllm.model_dir import (
    CONFIG_NAME,
    DTYPES,
    bundled_model,
    find_model,
    load_model,
    read_config,
    read_tokenizer,
    verify_model,
)
from tinyllm.runtime import cache_folder, may_have_gpu, pick_device
from tinyllm.storage import MANIFEST_NAME

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from tinyllm.exchange.foreign import ForeignModel
    from tinyllm.generation.generator import Generator
    from tinyllm.model.transformer import Transformer
    from tinyllm.tokenizer.codec import Tokenizer


def is_model(path: str | Path) -> bool:
    """Whether `path` is meant as a model: a directory with one, or any file. What it holds is not looked at."""
    path = Path(path)
    try:
        return path.is_file() or any((place / CONFIG_NAME).is_file() for place in (path, path / "model"))
    except (OSError, ValueError):
        return False  # a prompt, too long for a name or with a NUL in it


def read_model(path: str | Path, tokenizer: str | Path | None = None) -> "ForeignModel":
    """The model at `path` as arrays, with its tokenizer: what exports start from.

    Raises InputError, FormatError, ArtifactError or MismatchError where it is missing, damaged, or does not fit.
    """
    from tinyllm.exchange import read

    path = _locate(path)
    if path.is_dir():
        verify_model(path)
    return read.read_model(path, None if tokenizer is None else Path(tokenizer))


def open_model(
    path: str | Path,
    tokenizer: str | Path | None = None,
    device: "torch.device | str" = "cpu",
    dtype: "torch.dtype | None" = None,
) -> "tuple[Transformer, Tokenizer]":
    """The model at `path` on `device`, in `dtype` (None = float32), and its tokenizer or the one that is named.

    Raises as `read_model` does.
    """
    path = _locate(path)
    if _is_ours(path, tokenizer):
        return load_model(path, device, dtype)
    from tinyllm.exchange.build import build_transformer
    from tinyllm.exchange.write import tokenizer_of

    model = read_model(path, tokenizer)
    return build_transformer(model, device, dtype), tokenizer_of(model)


def load(
    path: str | Path | None = None,
    *,
    tokenizer: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    weights: str = "auto",
    announce: Callable[[str], None] | None = None,
) -> "Generator":
    """A generator from a model directory, a run directory, or a llama2.c, GGUF or Hugging Face model.

    Without `path` it is the bundled model. `tokenizer` names a `.model` or `tokenizer.bin` for files that hold none
    and have none beside them. On a CPU the engine is our own, without torch, and `weights` says how precisely it keeps
    them: fp32 (auto), bf16 or int8; another `dtype` than float32 asks for torch there as well. `announce` gets a line
    when something takes long or goes another way. Raises InputError, FormatError, ArtifactError or MismatchError for a
    model that is missing, foreign, damaged or does not fit its tokenizer, UsageError for a device that is not here,
    ConfigError for a dtype or weights that do not exist or do not go together.
    """
    if dtype not in DTYPES.values():
        raise ConfigError(f"dtype is {dtype}; it can be {', '.join(DTYPES.values())}")
    kinds = ("auto", *get_args(WeightsKind))
    if weights not in kinds:
        raise ConfigError(f"weights is {weights}; it can be {', '.join(kinds)}")
    found = bundled_model() if path is None else _locate(path)
    if dtype == "float32" and (device == "cpu" or (device == "auto" and not may_have_gpu())):
        kind = next(kind for kind in get_args(WeightsKind) if weights in (kind, "auto"))
        return _load_without_torch(found, tokenizer, kind, announce or _say_nothing)
    if weights != "auto":
        raise ConfigError(f"weights {weights} are for the CPU engine: device cpu and dtype float32")
    return _load_with_torch(found, tokenizer, device, dtype)


def _load_without_torch(
    path: Path, tokenizer: str | Path | None, kind: WeightsKind, announce: Callable[[str], None]
) -> "Generator":
    from tinyllm.generation.cpu_engine import CpuEngine
    from tinyllm.generation.cpu_weights import PackedWeights, StoredTensors
    from tinyllm.generation.generator import Generator
    from tinyllm.generation.kernel_cache import load_kernels

    tensors: Mapping[str, NDArray[np.float32]]
    if _is_ours(path, tokenizer):
        verify_model(path)
        config, opened_tokenizer, tensors = read_config(path), read_tokenizer(path), StoredTensors(path)
    else:
        from tinyllm.exchange.write import tokenizer_of

        model = read_model(path, tokenizer)
        config, opened_tokenizer, tensors = model.config, tokenizer_of(model), model.tensors
    weights = PackedWeights(config, tensors, kind)
    kernels = load_kernels(kind, cache_folder() / "kernels", announce)  # after what can be wrong with the model
    engine = CpuEngine(config, weights, kernels)
    return Generator(engine, opened_tokenizer, config, path)


def _load_with_torch(path: Path, tokenizer: str | Path | None, device: str, dtype: str) -> "Generator":
    import torch

    from tinyllm.generation.generator import Generator
    from tinyllm.generation.torch_engine import TorchEngine

    model, opened_tokenizer = open_model(path, tokenizer, pick_device(device), getattr(torch, dtype))
    return Generator(TorchEngine(model), opened_tokenizer, model.config, path)


def _say_nothing(line: str) -> None:
    """For callers that want no lines."""


def _is_ours(path: Path, tokenizer: str | Path | None) -> bool:
    """Whether `path` is a directory that tinyllm wrote, taken with its own tokenizer."""
    return tokenizer is None and (path / MANIFEST_NAME).is_file()


def _locate(path: str | Path) -> Path:
    """The file or model directory that `path` means. Raises InputError where there is none."""
    path = Path(path)
    return path if path.is_file() else find_model(path)
