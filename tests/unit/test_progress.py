"""The protocol of progress: the default ignores events, and a subclass receives those that it overrides."""

from dataclasses import FrozenInstanceError

import pytest

from recorder import Recorder
from tinyllm.progress import SILENT, Note, Progress, Reporter


def test_the_default_ignores_lines_and_progress(capfd: pytest.CaptureFixture[str]) -> None:
    note: Note = SILENT.note
    note("a line")
    SILENT.advance(Progress("encoding", 1, None, "bytes"))
    assert capfd.readouterr() == ("", "")


def test_a_reporter_receives_the_events_that_it_overrides() -> None:
    class Lines(Reporter):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def note(self, message: str) -> None:
            self.lines.append(message)

    lines, recorder, progress = Lines(), Recorder(), Progress("dev", 2, 3, "batches", kept=1)
    reporters: tuple[Reporter, ...] = (lines, recorder)
    for reporter in reporters:
        reporter.note("a line")
        reporter.advance(progress)
    assert (lines.lines, recorder.notes, recorder.progress) == (["a line"], ["a line"], [progress])


def test_progress_does_not_change_after_it_was_told() -> None:
    with pytest.raises(FrozenInstanceError):
        Progress("dev", 2, 3, "batches").done = 3  # type: ignore[misc]
