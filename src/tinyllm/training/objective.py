"""The objective of a run: the batches of an update, their loss, and how many targets count.

The updater takes a `Loss`, the loop an `Objective`; neither knows what a batch holds. Next-token prediction is
`next_token.py`; another room may bring its own objective. The custom kernels compute the losses that are a
`loss.NextTokenLoss`; they refuse any other by its name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from tinyllm.machine.signals import StopRequest
    from tinyllm.training.step import Updater


class Loss(Protocol):
    """The loss of a batch."""

    name: str
    """The loss in messages, such as "next-token loss"."""

    def compile(self, enabled: bool) -> None:
        """Enables or disables torch.compile for the loss; no effect if the loss has nothing to compile."""

    def loss(self, model: Any, batch: Any) -> Tensor:
        """The loss of `batch`, summed over its targets: scalar float32, in nats."""


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation."""

    loss: float
    """Nats a target."""
    bits_per_byte: float | None = None
    """Total bits of the predicted tokens / bytes of their text; None if the targets are not tokens."""

    @property
    def criterion(self) -> float:
        """The number that is lowest for the best model."""
        return self.loss

    def record(self) -> dict[str, Any]:
        """The fields of its line of metrics."""
        return {"validation_loss": self.loss, "bits_per_byte": self.bits_per_byte}

    def __str__(self) -> str:
        bits = "" if self.bits_per_byte is None else f", {self.bits_per_byte:.4f} bits per byte"
        return f"validation loss {self.loss:.4f}{bits}"


class Objective(Loss, Protocol):
    """All that the loop knows of the data."""

    only_whole_epochs: bool
    """Whether only the end of an epoch is evaluated and saved: not step 0, not the step that a run stops at."""

    def batches(self, step: int) -> Iterator[Any]:
        """The microbatches of update `step` for this rank, on the device; a pure function of the step."""

    def num_targets(self, step: int) -> int:
        """The number of targets that count in update `step`, at least 1, over the microbatches of all ranks."""

    def num_epochs(self, step: int) -> float:
        """The number of passes over the data in the first `step` updates."""

    def metrics(self) -> dict[str, Any]:
        """Further numbers of the last update for its line of metrics, such as an accuracy."""

    def evaluate(self, updater: "Updater", stop: "StopRequest | None") -> Evaluation | None:
        """Evaluates the updater's model; None if `stop` was requested before the end.

        Every rank calls it, and gets the same result.
        """

    def inputs(self) -> dict[str, Any]:
        """Fingerprints of the data, as JSON values; a resumed run must have the same."""

    def resume_from(self, inputs: Mapping[str, Any]) -> None:
        """Takes over what a checkpoint's `inputs` fix, such as the order of the data; called before the first update.

        Raises MismatchError for inputs that this version cannot continue.
        """
