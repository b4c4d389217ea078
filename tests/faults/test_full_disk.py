"""A full disk, or a file size limit, in the middle of a save."""

import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults import trials
from tinyllm.training import loop

SAVED_STEP = trials.INTERVAL
SMALLEST = 3000


def before_second_save(action: Callable[[], object]) -> None:
    """Makes this process call `action` right before its second checkpoint."""
    num_saves = 0

    def watched(save: Callable[..., Any]) -> Callable[..., Any]:
        def save_after_action(*positional: Any) -> Any:
            nonlocal num_saves
            num_saves += 1
            if num_saves == 2:
                action()
            return save(*positional)

        return save_after_action

    trials.wrap(loop, "save_checkpoint", watched)


def train_with_file_limit(limit_bytes: int, arguments: list[str]) -> None:
    """Runs `tinyllm train` with a file size limit from its second checkpoint on."""
    before_second_save(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY)))
    trials.command(*arguments)


def train_with_ballast(free_bytes: int, ballast: Path, arguments: list[str]) -> None:
    """Runs `tinyllm train` on a disk with the given number of free bytes from its second checkpoint on."""
    before_second_save(lambda: fill(ballast, free_bytes))
    trials.command(*arguments)


def fill(ballast: Path, free_bytes: int) -> None:
    """Extends a file until the disk has about `free_bytes` left."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            file.truncate(max(0, file.tell() - free_bytes))


def check(trial: trials.Trial, run: Path, shards: Path, make_room: Callable[[], None], whole: Path) -> None:
    """Expects one line with path and bytes and a whole last checkpoint; with more space, the run ends as usual."""
    code, text = trial.end(), trial.text()
    assert code == 1, text
    assert "Traceback" not in text
    last = text.strip().splitlines()[-1]
    assert str(run) in last, last
    assert re.search(r"\d+ bytes", last), last
    assert trials.damaged_checkpoints(run) == []
    assert trials.newest_step(run) >= SAVED_STEP
    make_room()
    trials.train_to_the_end(shards, run)
    trials.assert_same_run(run, whole)


@pytest.mark.promise("4 a file size limit: last checkpoint whole, path and bytes named", fast=5, full=20)
def test_a_file_size_limit(
    count: int, tell: Callable[[str], None], tiny_shards: Path, whole: Path, tmp_path: Path
) -> None:
    newest = whole / "checkpoints" / f"step-{trials.NUM_STEPS:08d}"
    largest = max(path.stat().st_size for path in newest.iterdir())
    for index in range(count):
        run = tmp_path / f"run{index}"
        # The command's output goes to a file too, which needs some space.
        limit = SMALLEST + index * (largest - SMALLEST - 100) // max(1, count - 1)
        trial = trials.Trial(
            tmp_path / "out.txt", train_with_file_limit, limit, trials.train_arguments(tiny_shards, run)
        )
        check(trial, run, tiny_shards, lambda: None, whole)
    tell(f"{count} limits from {SMALLEST} to {largest - 100} bytes")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB in memory; the test is skipped if only root may create one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small tmpfs here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.promise("4 a full disk: last checkpoint whole, path and bytes named", fast=5, full=20)
def test_a_full_disk(
    count: int, tell: Callable[[str], None], small_disk: Path, tiny_shards: Path, whole: Path, tmp_path: Path
) -> None:
    newest = whole / "checkpoints" / f"step-{trials.NUM_STEPS:08d}"
    size = sum(path.stat().st_size for path in newest.iterdir())
    for index in range(count):
        run, ballast = small_disk / f"run{index}", small_disk / "ballast"
        free = index * size // count
        trial = trials.Trial(
            tmp_path / "out.txt", train_with_ballast, free, ballast, trials.train_arguments(tiny_shards, run)
        )
        check(trial, run, tiny_shards, ballast.unlink, whole)
        for path in sorted(run.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    tell(f"{count} sizes of free space from 0 to {size} bytes")
