"""Writes the `ckpt.pt` of the Tiny-LLM tutorial: a llama2.c checkpoint with the entries of the tutorial's train.py.

Its entries are `model`, `model_args`, `iter_num`, `best_val_loss` and `config`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyllm import storage
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.llama2c_pt import write_pt
from tinyllm.exchange.read import read_model


def write_checkpoint(
    target: Path, model: ForeignModel, step: int, best_loss: float, constants: Mapping[str, Any]
) -> None:
    """Commits `model` after `step` updates to `target`, with its validation loss and the constants of train.py.

    Raises InputError if llama2.c would load another model from the file, ArtifactError if the disk refuses.
    """
    entries = {"iter_num": step, "best_val_loss": best_loss, "config": dict(constants)}
    with storage.commit_file(target) as file:
        write_pt(file, model, entries)


def write_tutorial_checkpoint(model: Path, target: Path, constants: Mapping[str, Any]) -> None:
    """Commits the model directory `model`, which a training run saved, to `target`; errors as `write_checkpoint`."""
    details = storage.read_manifest(model, "model").details
    write_checkpoint(target, read_model(model), details["step"], details["validation_loss"], constants)
