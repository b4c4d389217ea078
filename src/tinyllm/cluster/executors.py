"""Runs stages by datatrove's executors: processes of this machine, tasks of Ray, or array jobs of Slurm.

datatrove writes its logs and what its steps exchange below the folder of the work; messages for the user are ours.
"""

import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import dill
from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats

from tinyllm.cluster.duplicates import Stage
from tinyllm.errors import InputError, TinyllmError, UsageError
from tinyllm.machine.signals import children_without_sigint
from tinyllm.machine.system import run_in_fork
from tinyllm.progress import Note

ExecutorName = Literal["local", "slurm", "ray"]


@dataclass(frozen=True)
class Slurm:
    """The options of Slurm's jobs."""

    partition: str | None = None
    time: str = "24:00:00"
    """Limit of a task, in Slurm's form."""
    memory_gb: int = 4
    only_scripts: bool = False
    """Whether the scripts are made and no job is launched."""


class LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor, with a pool that notices the death of a process; datatrove's waits forever."""

    def run(self) -> None:
        """Runs the tasks that are not completed. Raises the error of a task, or BrokenProcessPool."""
        self.save_executor_as_json()
        tasks = self.get_incomplete_ranks()
        if self.workers == 1:
            for task in tasks:
                deepcopy(self).run_task(task)
            return
        # dill knows the functions that a filter may hold, and pickle does not.
        pickled = dill.dumps(self)
        context = get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(self.workers, context, _start_process, (theirs,))
        try:
            with children_without_sigint():
                results = [pool.submit(_run_pickled, pickled, task) for task in tasks]
            for result in as_completed(results):
                result.result()
        finally:
            # Ends tasks that still run after an error or a signal: a part may take hours.
            ours.close()
            pool.shutdown(wait=True, cancel_futures=True)
            theirs.close()

    def run_task(self, task: int) -> None:
        """Runs one task, with its log in its file alone."""
        logger.enable("datatrove")
        with redirect_stderr(io.StringIO()):
            self._run_for_rank(task)


def _start_process(owner: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_owner, args=(owner,), daemon=True).start()


def _end_with_owner(owner: Connection) -> None:
    """Ends a process when the other end of `owner` is closed, also by the death of its process."""
    owner.poll(None)
    os._exit(1)


def _run_pickled(pickled: bytes, task: int) -> None:
    executor: LocalExecutor = dill.loads(pickled)
    executor.run_task(task)


def run_here(stages: Sequence[Stage], folder: Path, num_workers: int, note: Note) -> None:
    """Runs each stage in `num_workers` processes of this machine. Raises the error of a task.

    Raises TinyllmError if a process was killed.
    """
    for stage in stages:
        note(f"{stage.name}: {stage.num_tasks} task(s)")
        executor = LocalExecutor(
            stage.pipeline,
            tasks=stage.num_tasks,
            workers=min(num_workers, stage.num_tasks),
            logging_dir=str(folder / "logs" / stage.name),
            skip_completed=stage.keeps_completed,
        )
        try:
            with _quiet():
                executor.run()
        except BrokenProcessPool:
            raise TinyllmError(
                f"a process of {stage.name} died: it was killed, or memory ran out",
                hint="the same call goes on from what is whole, with fewer `num_workers` if memory is short "
                '(a script of yours must call it under `if __name__ == "__main__":`, because processes import it)',
            ) from None


class RayExecutor(RayPipelineExecutor):  # type: ignore[misc]
    """datatrove's executor for Ray, whose pools wait forever for a process that was killed."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        """Runs a task in a process of its own, whose end is noticed. Its statistics are in their file."""
        run = super()._run_for_rank
        status = run_in_fork(lambda: run(rank, local_rank, node_rank))
        if status:
            raise RuntimeError(f"the process of task {rank} ended with status {status}")
        return PipelineStats()


def run_on_ray(stages: Sequence[Stage], folder: Path, num_workers: int, note: Note) -> None:
    """Runs each stage as tasks of the Ray cluster that RAY_ADDRESS names, or of one on this machine."""
    try:
        import ray
    except ImportError:
        raise UsageError("executor needs ray: pip install 'tinyllm[cluster]'", parameter="executor") from None

    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        for stage in stages:
            note(f"{stage.name}: {stage.num_tasks} task(s)")
            logs = folder / "logs" / stage.name
            with _quiet():
                executor = RayExecutor(
                    stage.pipeline,
                    tasks=stage.num_tasks,
                    workers=min(num_workers, stage.num_tasks),
                    logging_dir=str(logs),
                    skip_completed=stage.keeps_completed,
                    mem_per_cpu_gb=1,
                )
                executor.run()
                left = executor.get_incomplete_ranks(skip_completed=True)
            if left:
                log = logs / "logs" / f"task_{left[0]:05d}.log"
                raise TinyllmError(
                    f"{len(left)} of {stage.num_tasks} task(s) of {stage.name} failed, "
                    f"the first is {left[0]}: see {log}",
                    hint="without an error in it, the process was killed, or memory ran out; the same call goes on "
                    "from what is whole",
                )
    finally:
        if started:
            ray.shutdown()


def check_slurm(slurm: Slurm) -> None:
    """Raises UsageError without a partition, and InputError if jobs cannot be launched from this machine."""
    if slurm.partition is None:
        raise UsageError("slurm_partition is missing: Slurm's jobs need a partition", parameter="slurm_partition")
    if not slurm.only_scripts and shutil.which("sbatch") is None:
        raise InputError(
            "this machine has no sbatch, which launches jobs of Slurm",
            hint="run it where jobs are launched, or see the scripts with `dry_run=True`",
        )


def run_on_slurm(stages: Sequence[Stage], folder: Path, num_workers: int, slurm: Slurm, note: Note) -> list[str]:
    """Launches the stages as array jobs, each after the one before; returns their scripts."""
    activate = Path(sys.prefix) / "bin" / "activate"
    executor, scripts = None, []
    for stage in stages:
        logs = folder / "logs" / stage.name
        executor = SlurmPipelineExecutor(
            stage.pipeline,
            tasks=stage.num_tasks,
            time=slurm.time,
            partition=slurm.partition,
            mem_per_cpu_gb=slurm.memory_gb,
            workers=min(num_workers, stage.num_tasks),
            job_name=f"tinyllm-{stage.name}",
            qos="",
            venv_path=str(activate) if activate.exists() else None,
            depends=executor,
            logging_dir=str(logs),
            skip_completed=stage.keeps_completed,
        )
        command = f"srun -l -n 1 launch_pickled_pipeline {logs / 'executor.pik'}"
        scripts.append(
            executor.get_launch_file_contents(
                executor.get_sbatch_args(min(stage.num_tasks, executor.max_array_size)), command
            )
        )
    if not slurm.only_scripts and executor is not None:
        with _quiet():
            executor.run()
        note(f"launched {len(stages)} jobs of Slurm; their logs are in {folder / 'logs'}")
    return scripts


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps datatrove's messages off the terminal; its tasks log to files."""
    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")
