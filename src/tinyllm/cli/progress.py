"""The displays of progress on stderr. Importing rich is slow, so fast commands avoid this module.

A bar is shown only on a terminal.
"""

from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from tinyllm.cli.console import note
from tinyllm.progress import Progress, Reporter

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def progress_bar(*columns: str) -> Bar:
    """A progress bar on stderr with extra text columns (rich templates); hidden if stderr is no terminal."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *(TextColumn(column) for column in columns),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
    )


class Display(Reporter):
    """Prints lines, and shows a bar for each piece of work until it is done. A context manager: its end stops the bar.

    Displays of a stage override `numbers`, and have methods for the stage's further events.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end_bar()

    def note(self, message: str) -> None:
        """Prints the line."""
        note(message)

    def advance(self, progress: Progress) -> None:
        """Moves the bar, which stops at the end of the work."""
        self.begin(progress.label)
        assert self._bar is not None
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            description=progress.label,
            numbers=self.numbers(progress),
        )
        if progress.done == progress.total:
            self._end_bar()

    def begin(self, label: str) -> None:
        """Starts a bar, unless there is one."""
        if self._bar is None:
            self._bar = progress_bar("{task.fields[numbers]}")
            self._task = self._bar.add_task(label, total=None, numbers="")
            self._bar.start()

    def numbers(self, progress: Progress) -> str:  # noqa: ARG002 (for displays of stages)
        """The text beside the bar."""
        return ""

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class DownloadDisplay(Display):
    """Shows the bytes that have arrived."""

    def numbers(self, progress: Progress) -> str:
        """Megabytes that arrived, and those of the whole file."""
        whole = f" of {progress.total / 1e6:,.1f}" if progress.total else ""
        return f"{progress.done / 1e6:,.1f}{whole} MB"
