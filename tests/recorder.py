"""A reporter for tests of stages other than training."""

from collections.abc import Callable

from tinyllm.progress import Progress, Reporter


class Recorder(Reporter):
    """Records lines and progress, and calls `at_advance` after each progress."""

    def __init__(self, at_advance: Callable[[Progress], object] | None = None) -> None:
        self.notes: list[str] = []
        self.progress: list[Progress] = []
        self._at_advance = at_advance

    def note(self, message: str) -> None:
        self.notes.append(message)

    def advance(self, progress: Progress) -> None:
        self.progress.append(progress)
        if self._at_advance is not None:
            self._at_advance(progress)
