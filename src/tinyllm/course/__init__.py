"""The public names of the tutorial's and the course's Python modules, which the scripts in the root also use.

`tokenizer`, `train_vocab`, `preprocess` and `sample` re-export these names. Each name is imported on first use, because
the worker processes of `preprocess.py` import the script.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "PretokDataset": "batches",
    "Task": "batches",
    "TextGenerator": "text_generator",
    "Tokenizer": "tokenizer",
    "download": "vocabulary",
    "pretokenize": "shards",
    "process_shard": "shards",
    "train_vocab": "vocabulary",
}

__all__ = [
    "PretokDataset",
    "Task",
    "TextGenerator",
    "Tokenizer",
    "download",
    "pretokenize",
    "process_shard",
    "train_vocab",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinyllm.course' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"tinyllm.course.{_HOMES[name]}"), name)
