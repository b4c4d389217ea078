"""Reporters of other classes: their methods receive events, and events without a method are ignored."""

from pathlib import Path
from typing import Any

import pytest

from tinyllm.errors import UsageError
from tinyllm.progress import Progress
from tinyllm.training.reporter import EVENTS, TrainingReporter, as_training_reporter


def test_every_event_is_listed() -> None:
    methods = {name for kind in TrainingReporter.__mro__ for name in vars(kind) if not name.startswith("_")}
    assert methods == set(EVENTS)


def test_a_training_reporter_stays_itself() -> None:
    reporter = TrainingReporter()
    assert as_training_reporter(reporter) is reporter


def test_an_object_with_one_method_receives_its_event() -> None:
    class Losses:
        def __init__(self) -> None:
            self.losses: list[float] = []

        def step(self, record: dict[str, Any]) -> None:
            self.losses.append(record["loss"])

    losses = Losses()
    reporter = as_training_reporter(losses)
    reporter.note("ignored")
    reporter.advance(Progress("training", 1, 2, "updates"))
    reporter.step({"step": 1, "loss": 2.5})
    reporter.model_saved(Path("model"))
    assert losses.losses == [2.5]


def test_an_object_without_any_event_is_refused() -> None:
    with pytest.raises(
        UsageError, match="a reporter of class builtin_function_or_method has no method note, advance, started, step, "
    ):
        as_training_reporter(print)
