"""The events of a run, for a program that shows them. The loop itself prints nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyllm.errors import UsageError
from tinyllm.progress import Reporter


class TrainingReporter(Reporter):
    """Receives the events of a run and ignores them; the command line draws a progress bar from them."""

    def started(self, step: int, best_loss: float | None) -> None:
        """Called before the first update. The run goes on from `step`; its lowest validation loss is None if new."""

    def step(self, record: dict[str, Any]) -> None:
        """Called after each update; `record` is its line of metrics."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Called after each evaluation; `record` is its line of metrics."""

    def samples(self, step: int, prompt: str, texts: Sequence[str]) -> None:
        """Called after an evaluation at `step` with the continuations of `prompt`, if the run draws samples."""

    def model_saved(self, path: Path) -> None:
        """Called after the model directory `path` was written."""


EVENTS = ("note", "advance", "started", "step", "evaluation", "samples", "model_saved")


def as_training_reporter(receiver: object) -> TrainingReporter:
    """`receiver` if it is a TrainingReporter; otherwise a reporter that calls the methods of `receiver` in `EVENTS`.

    Raises UsageError if `receiver` has none of them.
    """
    if isinstance(receiver, TrainingReporter):
        return receiver
    methods = {name: getattr(receiver, name) for name in EVENTS if callable(getattr(receiver, name, None))}
    if not methods:
        raise UsageError(
            f"a reporter of class {type(receiver).__name__} has no method {', '.join(EVENTS[:-1])} or {EVENTS[-1]}",
            hint="derive its class from tinyllm.training.reporter.TrainingReporter",
        )
    reporter = TrainingReporter()
    vars(reporter).update(methods)
    return reporter
