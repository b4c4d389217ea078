"""How commands speak: results on stdout, everything else on stderr, bars only on a terminal."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def note(message: str) -> None:
    """One line on stderr for the person at the keyboard; never part of a command's result."""
    print(message, file=sys.stderr, flush=True)


def progress_bar(*columns: str) -> Progress:
    """A bar on stderr with the given extra text columns (rich templates); shows nothing off a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *(TextColumn(column) for column in columns),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
    )
