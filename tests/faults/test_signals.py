"""SIGTERM and SIGINT at every kind of moment, once and twice."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trials

from tinyllm.training import loop, step

SECONDS = 20
MOMENTS = ("compile", "step", "evaluation", "save", "data")
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def train_slowly(moment: str, at: int, ready: Path, arguments: list[str]) -> None:
    """`tinyllm train` that says when it is at the given moment, and stays there for a while."""
    calls = 0

    def dawdle() -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            ready.touch()
            end = time.monotonic() + 0.5
            # In slices, as Python runs a handler between two operations.
            while time.monotonic() < end:
                time.sleep(0.01)

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def dawdling(*positional: Any, **named: Any) -> Any:
            dawdle()
            return function(*positional, **named)

        return dawdling

    match moment:
        case "compile" | "step":
            # A model is compiled inside its first update.
            step.Updater.update = slow(step.Updater.update)  # type: ignore[method-assign]
        case "evaluation":
            loop.Trainer._to_device = slow(loop.Trainer._to_device)  # type: ignore[method-assign]
        case "save":
            loop.storage.disk.after_operation = lambda operation, path: "step-" in path.name and dawdle()
        case "data":
            loop.read_batch = slow(loop.read_batch)
    trials.command(*arguments)


def wait_for(path: Path, trial: trials.Trial) -> None:
    deadline = time.monotonic() + trials.PATIENCE_SECONDS
    while not path.exists():
        assert trial.process.is_alive(), trial.text()
        assert time.monotonic() < deadline, trial.text()
        time.sleep(0.005)


def place_of(moment: str, index: int) -> int:
    """At which call to dawdle: the first update compiles; evaluations come after four updates of two microbatches."""
    return {
        "compile": 1,
        "step": 2 + index % 10,
        # Two batches of the first evaluation, then 8 of training, then the second evaluation.
        "evaluation": 2 + 4 * 2 + 1 + index % 2,
        "save": 1 + index % 6,
        "data": 3 + index,
    }[moment]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.promise("7 SIGTERM, SIGINT", fast=2, full=10)
def test_a_signal_saves_and_a_second_one_ends_at_once(
    moment: str,
    count: int,
    tell: Callable[[str], None],
    tiny_shards: Path,
    tmp_path: Path,
    whole: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property(
        "fault campaign", {"promise": f"7 SIGTERM, SIGINT in {moment}: saved, exit code, one or two signals"}
    )
    slowest = 0.0
    for number in (signal.SIGTERM, signal.SIGINT):
        for index in range(count):
            run, ready = tmp_path / f"run{number}{index}", tmp_path / f"ready{number}{index}"
            arguments = trials.train_arguments(tiny_shards, run)
            trial = trials.Trial(tmp_path / "out.txt", train_slowly, moment, place_of(moment, index), ready, arguments)
            wait_for(ready, trial)
            start = time.monotonic()
            os.kill(trial.pid, number)
            twice = index % 2 == 1
            if twice and moment != "compile":
                time.sleep(0.05)
                os.kill(trial.pid, number)
            assert trial.end() == CODES[number], trial.text()
            slowest = max(slowest, time.monotonic() - start)
            assert "Traceback" not in trial.text()
            assert trials.damaged_checkpoints(run) == []
            if moment == "compile":
                assert trials.last_logged_step(run) == 0
            elif not twice:
                # The step under way was finished and saved: nothing is lost.
                assert trials.newest_step(run) == trials.last_logged_step(run) >= 1
            trials.train_to_the_end(tiny_shards, run)
            trials.assert_same_run(run, whole)
    assert slowest < SECONDS
    tell(f"exit codes 143 and 130; the slowest end took {slowest:.1f} s")
