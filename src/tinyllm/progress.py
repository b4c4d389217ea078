"""The one protocol of progress: everything that takes time tells a `Reporter`. Nothing below `cli` prints.

A stage with more to tell has a subclass with further events: `training/reporter.py` and `classification/events.py`.
A function that only has lines for the user takes a `Note`, such as the method `note` of a reporter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Note = Callable[[str], None]
"""Takes one line for the user."""
Unit = Literal["bytes", "batches", "updates", "tokens"]


@dataclass(frozen=True)
class Progress:
    """The finished part of a piece of work."""

    label: str
    """Name of the piece of work, such as a file or a split."""
    done: int
    total: int | None
    """Size of the whole work; None if it is unknown."""
    unit: Unit
    """Unit of `done`, `total` and `kept`."""
    kept: int = 0
    """Part of `done` from an earlier, interrupted run."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Further totals by name, such as documents and tokens."""


class Reporter:
    """Receives the events of a stage. This class ignores them; a display overrides those that it shows."""

    def note(self, message: str) -> None:
        """Called with one line for the user."""

    def advance(self, progress: Progress) -> None:
        """Called after each part of the work; the first call may come before any work."""


SILENT = Reporter()
"""The default reporter; `SILENT.note` is the default `Note`."""
