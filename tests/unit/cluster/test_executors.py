"""Stages on this machine: a process that dies, an error of a task, and what a finished run leaves."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")

from datatrove.pipeline.base import PipelineStep

from tinyllm.cluster.duplicates import Stage
from tinyllm.cluster.executors import run_here, run_on_ray
from tinyllm.cluster.steps import clear_work, mark_work
from tinyllm.errors import TinyllmError


class Die(PipelineStep):  # type: ignore[misc]
    """Kills its own process in task 0, as a system without memory does."""

    type = name = "death"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        if rank == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="Windows has no pause")
def test_the_death_of_a_process_ends_the_run(tmp_path: Path) -> None:
    """datatrove's own pool would wait for the task forever."""
    with pytest.raises(TinyllmError, match="a process of parts died: it was killed, or memory ran out"):
        run_here([Stage("parts", [Die()], 2, False)], tmp_path, 2, lambda line: None)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_the_death_of_a_process_ends_a_run_on_ray(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs tinyllm[cluster]")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # its workers cannot import this file
    message = "1 of 2 task.* of parts failed, the first is 0: see .*task_00000.log"
    with pytest.raises(TinyllmError, match=message):
        run_on_ray([Stage("parts", [Die()], 2)], tmp_path, 2, lambda line: None)


def test_finished_work_goes_and_other_folders_stay(tmp_path: Path) -> None:
    work = tmp_path / "joint.parts" / "work-1"
    mark_work(work)
    for name in ("logs", "signatures", "found"):
        (work / name).mkdir()
        (work / name / "00000").write_text("content", encoding="utf-8")
    clear_work(work, keep=("logs",))
    assert sorted(path.name for path in work.iterdir()) == ["logs", "tinyllm-work.json"]
    clear_work(work)
    assert not work.parent.exists()
    work.mkdir(parents=True)
    clear_work(work)
    assert work.exists(), "a folder without our mark"
