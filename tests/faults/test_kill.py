"""SIGKILL at any moment: the resumed run ends like an uninterrupted one."""

import mmap
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults import trials
from tinyllm.training import loop, saved_model

SAVING = b"S"


def train_and_die(seconds: float, moment: str, flag: Path, arguments: list[str]) -> None:
    """Runs `tinyllm train`, killed `seconds` after its start or after the beginning of a save."""
    with flag.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 1)
    number = random.Random(f"{seconds} {moment}")
    chosen = number.randrange(8)
    saves = 0

    def kill_later() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def watched(save: Callable[..., Any]) -> Callable[..., Any]:
        def save_watched(*positional: Any, **named: Any) -> Any:
            nonlocal saves
            shared[:1] = SAVING
            if moment == "save" and saves == chosen:
                threading.Thread(target=kill_later, daemon=True).start()
            saves += 1
            result = save(*positional, **named)
            shared[:1] = b"-"
            return result

        return save_watched

    trials.wrap(loop, "save_checkpoint", watched)
    trials.wrap(saved_model, "save_model", watched)
    if moment == "any":
        threading.Thread(target=kill_later, daemon=True).start()
    trials.command(*arguments)


@pytest.mark.promise("1 killed at a random moment, resumes bit for bit", fast=10, full=200)
def test_a_killed_run_resumes_bit_for_bit(
    count: int, tell: Callable[[str], None], tiny_shards: Path, whole: Path, tmp_path: Path
) -> None:
    start = time.monotonic()
    trials.train_to_the_end(tiny_shards, tmp_path / "again")
    run_seconds = time.monotonic() - start
    trials.assert_same_run(tmp_path / "again", whole)
    number = random.Random(count)
    in_save = killed = most_lost = 0
    for index in range(count):
        run, flag = tmp_path / f"run{index}", tmp_path / "flag"
        flag.write_bytes(b"-")
        moment = "any" if index % 4 == 0 else "save"
        seconds = number.uniform(0, 0.8 * run_seconds) if moment == "any" else number.expovariate(1 / 0.004)
        arguments = trials.train_arguments(tiny_shards, run)
        trial = trials.Trial(tmp_path / "killed.txt", train_and_die, seconds, moment, flag, arguments)
        code = trial.end()
        assert code in (-signal.SIGKILL, 0), trial.text()
        killed += code != 0
        in_save += code != 0 and flag.read_bytes() == SAVING
        assert trials.damaged_checkpoints(run) == [], f"trial {index}"
        lost = trials.last_logged_step(run) - trials.newest_step(run)
        assert 0 <= lost <= trials.INTERVAL, f"trial {index}: {lost} steps lost"
        most_lost = max(most_lost, lost)
        trials.train_to_the_end(tiny_shards, run)
        trials.assert_same_run(run, whole)
    assert killed >= 0.8 * count
    assert in_save >= count / 2
    tell(f"{killed} killed, {in_save} of them in a save; at most {most_lost} steps lost, interval {trials.INTERVAL}")
