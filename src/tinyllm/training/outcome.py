"""The result of a run, for its caller."""

from dataclasses import dataclass
from typing import Literal

from tinyllm.training.checkpoint import TrainingState
from tinyllm.training.objective import Evaluation
from tinyllm.training.saved_model import SavedModel

Reason = Literal["done", "time", "evaluated"]


@dataclass(frozen=True, repr=False)
class Outcome:
    """The result of a run."""

    reason: Reason
    state: TrainingState
    evaluation: Evaluation | None
    """The last evaluation; None if nothing was left to do."""
    model: SavedModel | None
    """Step and loss of RUN/model; None if no evaluation gave a finite loss."""
    num_tokens: int
    """Number of tokens trained on, over all sessions."""
    num_parameters: int
    peak_memory_bytes: int | None
    """Largest resident memory of the process; None if the system does not report it."""

    def __repr__(self) -> str:
        return f"Outcome({self.reason!r}, step={self.state.step}, model={self.model!r})"
