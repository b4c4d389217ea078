"""From a path to a model, whatever it is the path of: ours, a run's, or another tool's file.

The one place that knows both `model_dir` and `exchange`. Commands and `tinyllm.load` come here; the rooms do not.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tinyllm.errors import ConfigError
from tinyllm.model_dir import CONFIG_NAME, DTYPES, WEIGHTS_NAME, bundled_model, find_model, load_model, verify_model
from tinyllm.tokenizer.codec import MODEL_NAME

if TYPE_CHECKING:
    import torch

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
    if tokenizer is None and all((path / name).is_file() for name in (WEIGHTS_NAME, MODEL_NAME)):
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
) -> "Generator":
    """A generator from a model directory, a run directory, or a llama2.c, GGUF or Hugging Face model.

    Without `path` it is the bundled model. `tokenizer` names a `.model` or `tokenizer.bin` for files that hold none
    and have none beside them. Raises InputError, FormatError, ArtifactError or MismatchError for a model that is
    missing, foreign, damaged or does not fit its tokenizer, UsageError for a device or dtype that is not here.
    """
    import torch

    from tinyllm.generation.generator import Generator
    from tinyllm.generation.torch_engine import TorchEngine
    from tinyllm.runtime import pick_device

    if dtype not in DTYPES.values():
        raise ConfigError(f"dtype is {dtype}; it can be {', '.join(DTYPES.values())}")
    found = bundled_model() if path is None else _locate(path)
    model, opened_tokenizer = open_model(found, tokenizer, pick_device(device), getattr(torch, dtype))
    return Generator(TorchEngine(model), opened_tokenizer, model.config, found)


def _locate(path: str | Path) -> Path:
    """The file or model directory that `path` means. Raises InputError where there is none."""
    path = Path(path)
    return path if path.is_file() else find_model(path)
