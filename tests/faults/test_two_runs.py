"""Two runs in one directory at the same time, and the lock of a killed run."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import trials
from tinyllm import storage

SECONDS = 5


def train_at(start: float, arguments: list[str]) -> None:
    """Runs `tinyllm train` from a common start time; prints its duration."""
    time.sleep(max(0.0, start - time.time()))
    begin = time.monotonic()
    try:
        trials.command(*arguments)
    finally:
        print(f"seconds {time.monotonic() - begin:.2f}")


@pytest.mark.promise("8 two runs in one directory: one continues, one is refused", fast=5, full=50)
def test_one_of_two_runs_is_refused(
    count: int, tell: Callable[[str], None], tiny_shards: Path, whole: Path, tmp_path: Path
) -> None:
    slowest, refused = 0.0, 0
    for index in range(count):
        run = tmp_path / f"run{index}"
        arguments = trials.train_arguments(tiny_shards, run)
        start = time.time() + 0.3
        both = [trials.Trial(tmp_path / f"out{place}.txt", train_at, start, arguments) for place in range(2)]
        codes = [trial.end() for trial in both]
        # If one run ends before the other starts, the other finds a finished run: not an error.
        assert sorted(codes) in ([0, 1], [0, 0]), [trial.text() for trial in both]
        for trial, code in zip(both, codes, strict=True):
            if code:
                refused += 1
                assert "is in use by another run; wait for it" in trial.text()
                slowest = max(slowest, float(trial.text().split()[-1]))
        trials.assert_same_run(run, whole)
    assert refused >= count * 0.8
    assert slowest < SECONDS
    tell(f"{refused} refused, the slowest after {slowest:.1f} s; the other run is whole each time")


@pytest.mark.promise("8 the lock is free after SIGKILL", fast=2, full=50)
def test_a_killed_run_leaves_no_lock(
    count: int, tell: Callable[[str], None], tiny_shards: Path, whole: Path, tmp_path: Path
) -> None:
    for index in range(count):
        run = tmp_path / f"run{index}"
        trial = trials.Trial(tmp_path / "out.txt", trials.command, *trials.train_arguments(tiny_shards, run))
        deadline = time.monotonic() + trials.PATIENCE_SECONDS
        while not storage.has_lock_text(run / ".lock") and time.monotonic() < deadline:
            time.sleep(0.002)
        trial.process.kill()
        assert trial.end() in (-signal.SIGKILL, 0)
        trials.train_to_the_end(tiny_shards, run)
        trials.assert_same_run(run, whole)
    tell(f"{count} of {count} resumed at once")
