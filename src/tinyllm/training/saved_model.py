"""What RUN/model is: the step and the validation loss that its manifest records. Nothing here writes.

A shape that would be saved but not loaded is refused before training.
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
    """A model that a run saved, and how it scored on the validation set."""

    step: int
    """Optimizer updates that made it."""
    loss: float
    """Validation loss, in nats a token."""
    bits_per_byte: float | None
    """The same in bits a byte; None in models of version 0.1.0, which did not record it."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The facts of the model directory `path`; None if there is none, or if no training run saved it.

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
    """Raises UsageError if a model of this shape, once saved, would not be read again."""
    try:
        from_hugging_face(to_hugging_face(config, "float32"), "its config.json")
    except FormatError as error:
        raise UsageError(f"a model of this shape could be saved but not loaded: {error}") from None


def model_details(step: int, evaluation: Evaluation, trained_on: str) -> Mapping[str, Any]:
    """What the manifest of RUN/model records, for `SavedModel.read`."""
    return {
        "step": step,
        "validation_loss": evaluation.loss,
        "bits_per_byte": evaluation.bits_per_byte,
        "trained_on": trained_on,
    }
