"""The events of a run, for a program that shows them. The loop itself prints nothing."""

from pathlib import Path
from typing import Any

from tinyllm.errors import UsageError
from tinyllm.progress import Reporter


class TrainingReporter(Reporter):
    """Receives the events of a run and ignores them; the command line draws a progress bar from them."""

    def step(self, record: dict[str, Any]) -> None:
        """Called after each update; `record` is its line of metrics."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Called after each evaluation; `record` is its line of metrics."""

    def model_saved(self, path: Path) -> None:
        """Called after the model directory `path` was written."""


EVENTS = ("note", "advance", "step", "evaluation", "model_saved")


def as_training_reporter(receiver: object) -> TrainingReporter:
    """`receiver`, or if it has another class, a reporter that calls the methods of it that are named as events.

    Raises UsageError if there is no such method.
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
