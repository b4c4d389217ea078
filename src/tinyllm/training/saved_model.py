"""RUN/model: the best model of a run, with its step and validation loss in its manifest.

`check_loadable` refuses, before training, a shape that a saved model could not be loaded with.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from torch import Tensor, nn

from tinyllm import storage
from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, UsageError
from tinyllm.machine import ranks
from tinyllm.model.hugging_face_config import from_hugging_face, to_hugging_face
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import save_model, verify_model
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.training.checkpoint import TrainingState, check_finite
from tinyllm.training.objective import Evaluation
from tinyllm.training.sharding import whole_weights


@dataclass(frozen=True)
class SavedModel:
    """Step and validation loss of a model that a run saved."""

    step: int
    """Number of optimizer updates before it was saved."""
    loss: float
    """Validation loss, in nats per token; for another objective its `Evaluation.criterion`."""
    bits_per_byte: float | None
    """Validation loss in bits per byte; None for models of version 0.1.0, which did not record it."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in the manifest of the model directory `path`; None if no training run saved a model there.

        Raises ArtifactError for a damaged directory.
        """
        if not (path / storage.MANIFEST_NAME).exists():
            return None
        details = storage.read_manifest(path, "model").details
        if "step" not in details or "validation_loss" not in details:
            return None
        return cls(details["step"], details["validation_loss"], details.get("bits_per_byte"))

    def __str__(self) -> str:
        return f"step {self.step}: {Evaluation(self.loss, self.bits_per_byte)}"


class ModelDirectory(Protocol):
    """The directory of a run's best model, and its format."""

    @property
    def path(self) -> Path:
        """The directory."""

    def verify(self) -> None:
        """Raises ArtifactError if the directory exists and is damaged."""

    def read(self) -> SavedModel | None:
        """The record of the model that this run saved; None if there is none."""

    def save(self, step: int, evaluation: Evaluation, weights: Mapping[str, Tensor]) -> None:
        """Replaces the directory by the model of `step`, which has these `weights`."""


@dataclass(frozen=True)
class LanguageModelDirectory:
    """The model directory of a language model in training."""

    path: Path
    model: Transformer
    tokenizer: Tokenizer
    trained_on: str
    """Fingerprint of the shards."""

    def verify(self) -> None:
        """Raises ArtifactError if the directory exists and is damaged."""
        if self.path.exists():
            verify_model(self.path)

    def read(self) -> SavedModel | None:
        """The record of the saved model; None if there is none."""
        return SavedModel.read(self.path)

    def save(self, step: int, evaluation: Evaluation, weights: Mapping[str, Tensor]) -> None:
        """Commits the model; `SavedModel.read` finds step and loss in its manifest."""
        details = {
            "step": step,
            "validation_loss": evaluation.loss,
            "bits_per_byte": evaluation.bits_per_byte,
            "trained_on": self.trained_on,
        }
        save_model(self.path, weights, self.model.config, self.tokenizer, details=details)


def keep_if_best(
    directory: ModelDirectory, model: nn.Module, state: TrainingState, evaluation: Evaluation, *, always: bool
) -> bool:
    """Saves `model` if `evaluation` is the best of the run, which `state` records, or `always`; returns whether it did.

    Every rank calls it, and the first one writes. Raises ArtifactError if a weight is not finite, or if the disk
    refuses.
    """
    criterion = evaluation.criterion
    best = math.isfinite(criterion) and (state.best_loss is None or criterion < state.best_loss)
    if best:
        state.best_loss = criterion
    if not (best or always):
        return False

    check_finite(model.state_dict(), state.step)
    weights = whole_weights(model)
    ranks.once(lambda: directory.save(state.step, evaluation, weights))
    return True


def check_loadable(config: ModelConfig) -> None:
    """Raises UsageError if a saved model of this shape could not be loaded."""
    try:
        from_hugging_face(to_hugging_face(config, "float32"), "its config.json")
    except FormatError as error:
        raise UsageError(f"a model of this shape could be saved but not loaded: {error}") from None
