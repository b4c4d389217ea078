"""The events of a fine-tuning, for a program that shows them. Loads no torch."""

from dataclasses import dataclass

from tinyllm.classification.scores import Scores


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


class FinetuneListener:
    """Receives the events of a training; this one ignores them."""

    def loaded(self, message: str) -> None:
        """Called with one line for each file and model that was loaded."""

    def note(self, message: str) -> None:
        """Called with one line for the user."""

    def step(self, step: int, num_steps: int, epoch: int) -> None:
        """Called after each of `num_steps` updates, in `epoch`."""

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch."""
