"""The seeds' own doors: the scripts and the Python of the documents that this project grew out of.

The names that the documents import from `tokenizer`, `train_vocab`, `preprocess` and `sample`. They load on first use,
since `preprocess.py` is imported by its helper processes.
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
