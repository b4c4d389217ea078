"""Readers of the files that a run consists of, each a function of the file's path, for mutants to be thrown at."""

import tomllib
from functools import cache
from pathlib import Path

import torch
import trials

from tinyllm import artifacts
from tinyllm.config import ModelConfig, OptimizerConfig
from tinyllm.corpus.documents import read_documents
from tinyllm.model.transformer import Transformer
from tinyllm.settings import build_config, read_toml
from tinyllm.shards.format import read_document_ends
from tinyllm.training.checkpoint import load_checkpoint, read_state
from tinyllm.training.optimizer import build_optimizers
from tinyllm.training.step import Updater

VOCAB_SIZE = 320


def read_manifest(directory: Path) -> None:
    artifacts.verify(directory)


def read_index(path: Path) -> None:
    """Its name ends in the number of tokens."""
    read_document_ends(path, int(path.suffix[1:]))


def read_checkpoint_state(directory: Path) -> None:
    read_state(directory)


def read_config(path: Path) -> None:
    build_config([("shards", {"model": {"vocab_size": VOCAB_SIZE}}), (str(path), read_toml(path))])


def read_corpus(path: Path) -> None:
    for _ in read_documents([path]):
        pass


def read_checkpoint(directory: Path) -> None:
    """Past its manifest, as if that had let it through."""
    load_checkpoint(directory, *_trainee())


@cache
def _trainee() -> tuple[Transformer, Updater]:
    model = Transformer(ModelConfig(vocab_size=VOCAB_SIZE, **tomllib.loads(trials.CONFIG)["model"]))
    optimizers = build_optimizers(model, OptimizerConfig())
    return model, Updater(model, optimizers, dtype="float32", grad_clip=1.0, device=torch.device("cpu"))
