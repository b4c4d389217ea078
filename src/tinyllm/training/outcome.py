"""The result of a run, for its caller."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tinyllm import markup
from tinyllm.training.checkpoint import TrainingState
from tinyllm.training.loss_curve import as_part_of_page, draw_loss_curve
from tinyllm.training.objective import Evaluation
from tinyllm.training.pace import show_size, show_time
from tinyllm.training.saved_model import SavedModel

Reason = Literal["done", "early", "time", "evaluated"]
"""All steps are done; `training.patience` is used up; the time limit has passed; `training.eval_only`."""


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
    name: str = ""
    """The name of the run directory."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """Evenly spaced lines of metrics.jsonl, at most a few thousand; empty on every rank but the first."""

    def __repr__(self) -> str:
        return f"Outcome({self.reason!r}, step={self.state.step}, model={self.model!r})"

    def _repr_html_(self) -> str:
        reasons = {
            "done": "all steps are done",
            "early": "ended early: the validation loss stopped falling",
            "time": "stopped at the time limit",
            "evaluated": "evaluated only",
        }
        rows = {
            "run": self.name,
            "end": reasons[self.reason],
            "steps": f"{self.state.step:,}",
            "tokens": f"{self.num_tokens:,}",
            "parameters": f"{self.num_parameters:,}",
            "time": show_time(self.state.seconds),
            "last evaluation": "none" if self.evaluation is None else str(self.evaluation),
            "saved model": "none" if self.model is None else str(self.model),
        }
        if self.peak_memory_bytes is not None:
            rows["memory"] = show_size(self.peak_memory_bytes)
        curve = as_part_of_page(draw_loss_curve(self.records, self.name)) if self.records else ""
        return markup.frame(markup.table(rows.items()), curve)
