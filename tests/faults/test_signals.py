"""SIGTERM, SIGINT and SIGHUP in every phase of a run, once and twice."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults import trials
from tinyllm import storage
from tinyllm.training import next_token, step
from tinyllm.training.next_token import NextToken

SECONDS = 20
MOMENTS = ("compile", "step", "evaluation", "save", "data", "stop evaluation")
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


def train_slowly(moment: str, at: int, ready: Path, arguments: list[str]) -> None:
    """Runs `tinyllm train`, which makes the file `ready` at the given moment and waits there until it is removed."""
    calls = 0

    def pause() -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            ready.touch()
            end = time.monotonic() + trials.PATIENCE_SECONDS
            # Short sleeps: Python runs a signal handler between two operations.
            while ready.exists() and time.monotonic() < end:
                time.sleep(0.005)

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def paused(*positional: Any, **named: Any) -> Any:
            pause()
            return function(*positional, **named)

        return paused

    def pause_in_checkpoint(operation: str, path: Path) -> None:
        if "step-" in path.name:
            pause()

    match moment:
        case "compile" | "step":
            # The model is compiled in the first update.
            trials.wrap(step.Updater, "update", slow)
        case "evaluation":
            trials.wrap(NextToken, "_to_device", slow)
        case "save":
            storage.disk.after_operation = pause_in_checkpoint
        case "stop evaluation":
            # The time limit stops the run after everything is saved, so the first signal ends it at once.
            trials.wrap(NextToken, "evaluate", slow)
            arguments += ["--max-minutes", "1e-9"]
        case "data":
            trials.wrap(next_token, "step_windows", slow)
    trials.command(*arguments)


def wait_for(path: Path, trial: trials.Trial) -> None:
    deadline = time.monotonic() + trials.PATIENCE_SECONDS
    while not path.exists():
        assert trial.process.is_alive(), trial.text()
        assert time.monotonic() < deadline, trial.text()
        time.sleep(0.005)


def place_of(moment: str, index: int) -> int:
    """The call to wait in: the first update compiles; evaluations follow four updates of two microbatches."""
    return {
        "compile": 1,
        "step": 2 + index % 10,
        # Two batches of the first evaluation, 8 of training, then the second evaluation.
        "evaluation": 2 + 4 * 2 + 1 + index % 2,
        "save": 1 + index % 6,
        "data": 3 + index,
        "stop evaluation": 2,
    }[moment]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.promise("7 SIGTERM, SIGINT, SIGHUP", fast=2, full=10)
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
        "fault campaign", {"promise": f"7 SIGTERM, SIGINT, SIGHUP in {moment}: saved, exit code, one or two signals"}
    )
    slowest = 0.0
    for number in CODES:
        for index in range(count):
            run, ready = tmp_path / f"run{number}{index}", tmp_path / f"ready{number}{index}"
            arguments = trials.train_arguments(tiny_shards, run)
            trial = trials.Trial(tmp_path / "out.txt", train_slowly, moment, place_of(moment, index), ready, arguments)
            wait_for(ready, trial)
            start = time.monotonic()
            os.kill(trial.pid, number)
            sent_twice = index % 2 == 1
            # A closed terminal sends several SIGHUP: they count as one request.
            twice = sent_twice and number != signal.SIGHUP
            if sent_twice and moment not in ("compile", "stop evaluation"):  # the first signal ends them
                time.sleep(0.05)
                try:
                    os.kill(trial.pid, number)
                except ProcessLookupError:
                    # Another thread reads the data, so the run saves and ends without waiting for the test.
                    assert moment == "data"
                    twice = False
            ready.unlink()
            assert trial.end() == CODES[number], trial.text()
            slowest = max(slowest, time.monotonic() - start)
            assert "Traceback" not in trial.text()
            assert trials.damaged_checkpoints(run) == []
            if moment == "compile":
                assert trials.last_logged_step(run) == 0
            elif not twice:
                # The current step was finished and saved: nothing is lost.
                assert trials.newest_step(run) == trials.last_logged_step(run) >= 1
                if moment != "stop evaluation":
                    storage.verify(run / "model", "model")
            trials.train_to_the_end(tiny_shards, run)
            trials.assert_same_run(run, whole)
    assert slowest < SECONDS
    tell(f"exit codes 143, 130 and 129; the slowest end took {slowest:.1f} s")
