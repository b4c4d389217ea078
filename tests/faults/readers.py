"""Readers of the files of a run, each a function of the file's path, for tests with damaged copies.

Each reader imports its own modules: a child process for a corpus does not load torch.
"""

from functools import cache
from pathlib import Path
from typing import Any

from tinyllm import storage

VOCAB_SIZE = 320


def read_manifest(directory: Path) -> None:
    storage.verify(directory)


def read_index(path: Path) -> None:
    """Reads an index file whose name ends in the number of tokens."""
    from tinyllm.shards.format import read_document_ends

    read_document_ends(path, int(path.suffix[1:]))


def read_config(path: Path) -> None:
    from tinyllm.config.layers import config_for_shards, file_layer

    config_for_shards(VOCAB_SIZE, [file_layer(path)])


def read_corpus(path: Path) -> None:
    from tinyllm.corpus.documents import read_documents

    for _ in read_documents([path]):
        pass


def read_checkpoint_state(directory: Path) -> None:
    from tinyllm.training.checkpoint import read_state

    read_state(directory)


def read_checkpoint(directory: Path) -> None:
    """Loads a checkpoint without checking its manifest."""
    from tinyllm.training.checkpoint import load_checkpoint

    load_checkpoint(directory, *_model_and_updater())


@cache
def _model_and_updater() -> tuple[Any, Any]:
    """A model and an updater with the shape of the checkpoint."""
    import tomllib

    import torch

    from faults import trials
    from tinyllm.config import ModelConfig, OptimizerConfig
    from tinyllm.model.transformer import Transformer
    from tinyllm.training.optimizer import build_optimizers
    from tinyllm.training.step import Updater

    model = Transformer(ModelConfig(vocab_size=VOCAB_SIZE, **tomllib.loads(trials.CONFIG)["model"]))
    optimizers = build_optimizers(model, OptimizerConfig())
    return model, Updater(model, optimizers, dtype="float32", grad_clip=1.0, device=torch.device("cpu"))
