"""The events of a fine-tuning, for a program that shows them. Loads no torch."""

from dataclasses import dataclass

from tinyllm.classification.scores import Scores
from tinyllm.progress import Reporter


@dataclass(frozen=True)
class Epoch:
    """Loss and scores of one pass over the training sentences."""

    number: int
    """Number of the epoch, from 0."""
    train_loss: float
    """Mean loss of the epoch's sentences, in nats, measured during the updates and with dropout."""
    train_accuracy: float
    """Accuracy on the epoch's sentences, measured during the updates."""
    dev: Scores
    is_best: bool
    """Whether its dev accuracy exceeds that of every earlier epoch; if so, its weights are kept."""


class FinetuneReporter(Reporter):
    """Receives the events of a fine-tuning and ignores them. `advance` gets updates, and batches of predictions."""

    def loaded(self, message: str) -> None:
        """Called with one line for each file and model that was loaded."""

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch."""
