"""Loads a model from any path: a model directory, a run directory, or another tool's file.

This is the only module that combines `model_dir` and `exchange`. Commands and `tinyllm.load` use it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tinyllm.addresses import is_address
from tinyllm.arguments import as_choice, as_path, as_text
from tinyllm.config import ModelConfig, WeightsKind
from tinyllm.errors import ConfigError
from tinyllm.machine.device import may_have_gpu, pick_device
from tinyllm.machine.memory import check_memory
from tinyllm.model.size import weight_bytes
from tinyllm.model_dir import (
    CONFIG_NAME,
    DTYPES,
    bundled_model,
    find_model,
    load_model,
    open_tensors,
    read_config,
    read_tokenizer,
    verify_model,
)
from tinyllm.progress import SILENT, Note
from tinyllm.storage import MANIFEST_NAME
from tinyllm.storage.remote.fetch import fetch

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from tinyllm.exchange.foreign import ForeignModel
    from tinyllm.generation.generator import Generator
    from tinyllm.model.transformer import Transformer
    from tinyllm.tokenizer.codec import Tokenizer


def is_model(path: str | Path) -> bool:
    """Whether `path` is a file or a directory with a model; contents are not read, and an address counts."""
    if is_address(path):
        return True
    path = Path(path)
    try:
        return path.is_file() or any((place / CONFIG_NAME).is_file() for place in (path, path / "model"))
    except (OSError, ValueError):
        return False  # a prompt: too long for a path, or with a NUL character


def read_model(path: str | Path, tokenizer: str | Path | None = None) -> "ForeignModel":
    """The model at `path` as NumPy arrays, with its tokenizer; exports start from it.

    Raises InputError, FormatError, ArtifactError or MismatchError if it is missing, damaged or inconsistent.
    """
    from tinyllm.exchange import read

    path = _locate(path)
    if path.is_dir():
        verify_model(path)
    return read.read_model(path, None if tokenizer is None else fetch(tokenizer))


def read_shape(path: str | Path) -> dict[str, Any]:
    """The settings of the section `model` that a run needs to begin from the model at `path`.

    Raises the errors of `read_model`.
    """
    path = _locate(Path(path).expanduser())
    config = read_config(path) if path.is_dir() else read_model(path).config
    return config.model_dump(exclude={"vocab_size", "multiple_of", "dropout"})


def open_model(
    path: str | Path,
    tokenizer: str | Path | None = None,
    device: "torch.device | str" = "cpu",
    dtype: "torch.dtype | None" = None,
    note: Note = SILENT.note,
) -> "tuple[Transformer, Tokenizer]":
    """The model at `path` on `device`, in `dtype` (None = float32), and its tokenizer, or the one given.

    `note` gets one line for each value of a foreign model that is left out. Raises the errors of `read_model`.
    """
    path = _locate(path, note)
    if _is_ours(path, tokenizer):
        return load_model(path, device, dtype)
    from tinyllm.exchange.build import build_transformer
    from tinyllm.exchange.write import tokenizer_of

    model = read_model(path, tokenizer)
    for line in model.notes:
        note(line)
    return build_transformer(model, device, dtype), tokenizer_of(model)


def load(
    path: str | Path | None = None,
    *,
    tokenizer: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    weights: str = "auto",
    note: Note = SILENT.note,
) -> "Generator":
    """A generator for a model directory, a run directory, or a llama2.c, GGUF or Hugging Face model.

    path       default: the bundled model
    tokenizer  a `.model` or `tokenizer.bin`, for model files with no tokenizer inside or beside them
    device     auto, cpu, cuda, cuda:N or mps
    dtype      float32, bfloat16 or float16; on a CPU, any but float32 uses the torch engine
    weights    precision of the CPU engine, which runs without torch: fp32 (auto), bf16 or int8
    note   called with one line before a long step, at each fallback, and for each value that is left out

    Raises InputError, FormatError, ArtifactError or MismatchError for a model that is missing, foreign, damaged or
    inconsistent. Raises UsageError for a device that is not available. Raises ConfigError for an unknown dtype or
    weights, or for weights without the CPU engine.

    >>> model = tinyllm.load()
    >>> model.config.context_length
    256
    """
    as_choice(dtype, "dtype", list(DTYPES.values()))
    as_choice(weights, "weights", ("auto", *get_args(WeightsKind)))
    as_text(device, "device")
    found = find(path, note)
    tokenizer = None if tokenizer is None else fetch(as_path(tokenizer, "tokenizer"), note=note)
    if dtype == "float32" and (device == "cpu" or (device == "auto" and not may_have_gpu())):
        kind = next(kind for kind in get_args(WeightsKind) if weights in (kind, "auto"))
        return _load_without_torch(found, tokenizer, kind, note, device)
    if weights != "auto":
        raise ConfigError(
            f"weights {weights} are for the CPU engine: device cpu and dtype float32", parameter="weights"
        )
    return load_with_torch(found, tokenizer=tokenizer, device=device, dtype=dtype, note=note)


def _load_without_torch(
    path: Path, tokenizer: str | Path | None, kind: WeightsKind, note: Note, device: str
) -> "Generator":
    from tinyllm.generation.engines.cpu_building import build_cpu_engine
    from tinyllm.generation.generator import Generator

    tensors: Mapping[str, NDArray[np.float32]]
    if _is_ours(path, tokenizer):
        verify_model(path)
        config, opened_tokenizer, tensors = read_config(path), read_tokenizer(path), open_tensors(path)
    else:
        from tinyllm.exchange.write import tokenizer_of

        model = read_model(path, tokenizer)
        for line in model.notes:
            note(line)
        config, opened_tokenizer, tensors = model.config, tokenizer_of(model), model.tensors
    settings = _settings(tokenizer, device=device, weights=kind)
    engine = build_cpu_engine(config, tensors, kind, note)
    return Generator(
        engine,
        opened_tokenizer,
        config,
        path,
        settings=settings,
        open_module=lambda: _open_module(path, tokenizer, config),
    )


def load_with_torch(
    path: str | Path | None = None,
    *,
    tokenizer: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    note: Note = SILENT.note,
) -> "Generator":
    """A generator on the torch engine, also on a CPU; arguments and errors are those of `load`."""
    import torch

    from tinyllm.generation.engines.static_engine import StaticEngine
    from tinyllm.generation.engines.torch_engine import TorchEngine
    from tinyllm.generation.generator import Generator

    as_choice(dtype, "dtype", list(DTYPES.values()))
    found = find(path, note)
    model, opened_tokenizer = open_model(found, tokenizer, pick_device(device), getattr(torch, dtype), note)
    settings = _settings(tokenizer, device=device, dtype=dtype)
    # A CPU starts kernels at once, so steps of fixed shape would only compute more.
    engine = StaticEngine(model) if model.output_weight.is_cuda else TorchEngine(model)
    return Generator(engine, opened_tokenizer, model.config, found, settings=settings, open_module=lambda: model)


def _open_module(path: Path, tokenizer: str | Path | None, config: ModelConfig) -> "Transformer":
    """The model at `path` as a PyTorch module on the CPU, in float32. Raises ResourceError if it does not fit."""
    advice = "free memory, or use a smaller model"
    check_memory("the model's PyTorch module", weight_bytes(config), advice)
    return open_model(path, tokenizer)[0]


def _settings(tokenizer: str | Path | None, **chosen: str) -> dict[str, str]:
    """The arguments of `load` that differ from their defaults, beside the path."""
    defaults = {"device": "auto", "dtype": "float32", "weights": "fp32"}
    changed = {name: value for name, value in chosen.items() if value != defaults[name]}
    return changed if tokenizer is None else {"tokenizer": str(tokenizer), **changed}


def _is_ours(path: Path, tokenizer: str | Path | None) -> bool:
    """Whether tinyllm wrote the directory `path`, and no other tokenizer is given."""
    return tokenizer is None and (path / MANIFEST_NAME).is_file()


def find(path: str | Path | None, note: Note = SILENT.note) -> Path:
    """The model file or directory at `path`, or the bundled one for None. Raises InputError if there is none."""
    return bundled_model() if path is None else _locate(path, note)


def _locate(path: str | Path, note: Note = SILENT.note) -> Path:
    """The file or model directory at `path`; that at an address is fetched.

    Raises InputError if there is none, ConfigError if it is no path, and the errors of `fetch`.
    """
    path = fetch(as_path(path, "path"), below=("model",), note=note)
    return path if path.is_file() else find_model(path)
