"""Step and validation loss of RUN/model, from its manifest. Nothing here writes.

`check_loadable` refuses, before training, a shape that a saved model could not be loaded with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tinyllm import storage
from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, UsageError
from tinyllm.model.hugging_face_config import from_hugging_face, to_hugging_face
from tinyllm.training.evaluate import Evaluation


@dataclass(frozen=True)
class SavedModel:
    """Step and validation loss of a model that a run saved."""

    step: int
    """Number of optimizer updates before it was saved."""
    loss: float
    """Validation loss, in nats a token."""
    bits_per_byte: float | None
    """Validation loss in bits a byte; None for models of version 0.1.0, which did not record it."""

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
        bits = "" if self.bits_per_byte is None else f", {self.bits_per_byte:.4f} bits a byte"
        return f"step {self.step}: validation loss {self.loss:.4f}{bits}"


def check_loadable(config: ModelConfig) -> None:
    """Raises UsageError if a saved model of this shape could not be loaded."""
    try:
        from_hugging_face(to_hugging_face(config, "float32"), "its config.json")
    except FormatError as error:
        raise UsageError(f"a model of this shape could be saved but not loaded: {error}") from None


def model_details(step: int, evaluation: Evaluation, trained_on: str) -> Mapping[str, Any]:
    """The manifest's details of RUN/model, read by `SavedModel.read`."""
    return {
        "step": step,
        "validation_loss": evaluation.loss,
        "bits_per_byte": evaluation.bits_per_byte,
        "trained_on": trained_on,
    }
