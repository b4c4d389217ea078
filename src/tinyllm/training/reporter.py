"""The events of a run, for a program that shows them. The loop itself prints nothing."""

from pathlib import Path
from typing import Any, Protocol


class Reporter(Protocol):
    """Receives the events of a run; the command line draws a progress bar from them."""

    def note(self, message: str) -> None:
        """Called with one line for the user."""

    def step(self, record: dict[str, Any]) -> None:
        """Called after each update; `record` is its line of metrics."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Called after each evaluation; `record` is its line of metrics."""

    def model_saved(self, path: Path) -> None:
        """Called after the model directory `path` was written."""


class Silence:
    """A `Reporter` that ignores every event."""

    def note(self, message: str) -> None:
        """Ignores the message."""

    def step(self, record: dict[str, Any]) -> None:
        """Ignores the update."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Ignores the evaluation."""

    def model_saved(self, path: Path) -> None:
        """Ignores the saved model."""
