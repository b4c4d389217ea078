"""A long run with many saves, evaluations and samples: memory, open files and disk use do not grow."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults import trials
from tinyllm.training import loop

KEPT = 2
SETTLING = 1 / 30
"""The fraction of the run that passes before the first measurement: one minute of thirty."""


def train_watched(seconds: float, readings: Path, arguments: list[str]) -> None:
    """Runs `tinyllm train`, which records memory, open files and checkpoints after each save."""
    last_save = 0.0

    def often(is_due: Callable[..., bool]) -> Callable[..., bool]:
        def due_every_few_seconds(trainer: loop.Trainer) -> bool:
            nonlocal last_save
            due = time.monotonic() - last_save > seconds / 600
            if due:
                last_save = time.monotonic()
            return due or is_due(trainer)

        return due_every_few_seconds

    def read_after_save(folder: Path) -> None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        num_files = len(list(Path("/proc/self/fd").iterdir()))
        num_checkpoints = len(list(folder.iterdir()))
        with readings.open("a") as file:
            file.write(f"{time.monotonic()} {resident} {num_files} {num_checkpoints} {threading.active_count()}\n")

    def watched(save: Callable[..., Any]) -> Callable[..., Any]:
        def save_and_read(folder: Path, *positional: Any) -> Any:
            saved = save(folder, *positional)
            read_after_save(folder)
            return saved

        return save_and_read

    trials.wrap(loop, "save_checkpoint", watched)
    trials.wrap(loop.Trainer, "_checkpoint_is_due", often)
    trials.command(*arguments)


@pytest.mark.promise("13 soak, seconds: memory +2 %, no file, no checkpoint too many", fast=5, full=1800)
def test_a_long_run_leaks_nothing(count: int, tell: Callable[[str], None], tiny_shards: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc, which this system has not")
    run, readings = tmp_path / "run", tmp_path / "readings.txt"
    arguments = trials.train_arguments(tiny_shards, run, "--max-minutes", str(count / 60), "--steps", "100000000")
    sampling = ["--sample.num-samples", "1", "--sample.max-new-tokens", "8", "--training.eval-interval", "50"]
    sampling += ["--checkpoint-interval", "100000000", "--training.keep-checkpoints", str(KEPT)]
    trial = trials.Trial(tmp_path / "out.txt", train_watched, count, readings, [*arguments, *sampling])
    assert trial.end(count + trials.PATIENCE_SECONDS) == 0, trial.text()
    rows = [[float(word) for word in line.split()] for line in readings.read_text().splitlines()]
    begin = rows[0][0]
    settled = [row for row in rows if row[0] - begin >= max(count * SETTLING, min(count / 2, 10))]
    assert len(settled) >= 3
    first, last = settled[0], settled[-1]
    growth = max(row[1] for row in settled) / first[1] - 1
    assert growth <= 0.02, f"memory grew by {growth:.1%}"
    assert last[2] <= first[2], "an open file is lost"
    assert last[4] <= first[4], "a thread is lost"
    assert max(row[3] for row in rows) <= KEPT
    assert trials.leftovers(run) == []
    tell(f"{len(rows)} saves; memory {growth:+.2%} after the first part, {int(last[2])} open files, {KEPT} checkpoints")
