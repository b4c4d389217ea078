"""tinyllm: train your own small language model from raw text, and use it.

The public names load on first use: `import tinyllm` loads neither torch nor numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyllm.version import __version__

if TYPE_CHECKING:
    from tinyllm.api import evaluate, fit, generate, merge_parts, prepare, prepare_part, train, train_tokenizer
    from tinyllm.config import SamplingConfig
    from tinyllm.generation.generator import Generator
    from tinyllm.generation.scoring import Score
    from tinyllm.generation.trace import Trace
    from tinyllm.loading import load
    from tinyllm.progress import Reporter
    from tinyllm.tokenizer.codec import Tokenizer

_HOMES = {
    "Generator": "tinyllm.generation.generator",
    "Reporter": "tinyllm.progress",
    "SamplingConfig": "tinyllm.config",
    "Score": "tinyllm.generation.scoring",
    "Tokenizer": "tinyllm.tokenizer.codec",
    "Trace": "tinyllm.generation.trace",
    "evaluate": "tinyllm.api",
    "fit": "tinyllm.api",
    "generate": "tinyllm.api",
    "load": "tinyllm.loading",
    "merge_parts": "tinyllm.api",
    "prepare": "tinyllm.api",
    "prepare_part": "tinyllm.api",
    "train": "tinyllm.api",
    "train_tokenizer": "tinyllm.api",
}

__all__ = [
    "Generator",
    "Reporter",
    "SamplingConfig",
    "Score",
    "Tokenizer",
    "Trace",
    "__version__",
    "evaluate",
    "fit",
    "generate",
    "load",
    "merge_parts",
    "prepare",
    "prepare_part",
    "train",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinyllm' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
