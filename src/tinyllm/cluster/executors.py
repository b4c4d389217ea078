"""Runs stages by datatrove's executors: processes of this machine, tasks of Ray, or array jobs of Slurm.

datatrove writes its logs and what its steps exchange below the folder of the work; messages for the user are ours.
"""

import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.utils.logging import logger

from tinyllm.cluster.duplicates import Stage
from tinyllm.errors import InputError, TinyllmError, UsageError
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


class QuietLocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's executor with the logs of tasks in their files alone."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        logger.enable("datatrove")
        with redirect_stderr(io.StringIO()):
            return super()._run_for_rank(rank, local_rank, node_rank)


def run_here(stages: Sequence[Stage], folder: Path, num_workers: int, note: Note) -> None:
    """Runs each stage in `num_workers` processes of this machine. Raises the error of a task."""
    for stage in stages:
        note(f"{stage.name}: {stage.num_tasks} task(s)")
        executor = QuietLocalExecutor(
            stage.pipeline,
            tasks=stage.num_tasks,
            workers=min(num_workers, stage.num_tasks),
            logging_dir=str(folder / "logs" / stage.name),
            skip_completed=stage.keeps_completed,
            start_method="spawn",
        )
        with _quiet():
            executor.run()


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
                executor = RayPipelineExecutor(
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
                raise TinyllmError(
                    f"{len(left)} of {stage.num_tasks} task(s) of {stage.name} failed, the first is {left[0]}: "
                    f"see {logs / 'logs' / f'task_{left[0]:05d}.log'}"
                )
    finally:
        if started:
            ray.shutdown()


def run_on_slurm(stages: Sequence[Stage], folder: Path, num_workers: int, slurm: Slurm, note: Note) -> list[str]:
    """Launches the stages as array jobs, each after the one before; returns their scripts.

    Raises UsageError without a partition, and InputError without Slurm on this machine.
    """
    if slurm.partition is None:
        raise UsageError("slurm_partition is missing: Slurm's jobs need a partition", parameter="slurm_partition")
    if not slurm.only_scripts and shutil.which("sbatch") is None:
        raise InputError(
            "this machine has no sbatch, which launches jobs of Slurm",
            hint="run it where jobs are launched, or see the scripts with `dry_run=True`",
        )
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
