"""tinyllm: train your own small language model from raw text, and use it.

The public names load on first use: `import tinyllm` loads neither torch nor numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyllm.version import __version__

if TYPE_CHECKING:
    from tinyllm.api import evaluate, fit, generate, train
    from tinyllm.generation.generator import Generator
    from tinyllm.loading import load
    from tinyllm.tokenizer.codec import Tokenizer

_HOMES = {
    "Generator": "tinyllm.generation.generator",
    "Tokenizer": "tinyllm.tokenizer.codec",
    "evaluate": "tinyllm.api",
    "fit": "tinyllm.api",
    "generate": "tinyllm.api",
    "train": "tinyllm.api",
    "load": "tinyllm.loading",
}

__all__ = ["Generator", "Tokenizer", "__version__", "evaluate", "fit", "generate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinyllm' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
