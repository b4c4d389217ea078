"""`tinyllm prepare --executor`: the flags of clusters, and their run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tinyllm.cli.console import show
from tinyllm.cli.progress import Display
from tinyllm.errors import ArgumentsError
from tinyllm.shards.format import ShardSet
from tinyllm.shards.recipe import GivenOptions
from tinyllm.tokenizer.codec import Tokenizer


@Parameter(name="*")
@dataclass(frozen=True)
class ClusterFlags:
    """The flags of work that is shared by tasks."""

    task: Annotated[int | None, Parameter(help="Write only the part of this task, 0 to --num-tasks - 1.")] = None
    num_tasks: Annotated[int | None, Parameter(help="Number of tasks that share the work.")] = None
    merge: Annotated[
        bool, Parameter(negative="", show_default=False, help="Join the parts of all tasks into the shards.")
    ] = False
    executor: Annotated[
        Literal["local", "slurm", "ray"] | None,
        Parameter(help="Run all tasks and the merge by datatrove: here, on Slurm or on Ray (tinyllm[cluster])."),
    ] = None
    dedup: Annotated[
        Literal["none", "exact", "near"],
        Parameter(help="Duplicates that --executor removes: copies, or also nearly equal texts (MinHash)."),
    ] = "none"
    filter: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            help="Filter of datatrove that leaves documents out: gopher-quality, gopher-repetition, c4-quality, "
            "fineweb-quality, language=en+de, regex=PATTERN. Give it again for more, in their order.",
        ),
    ] = ()
    slurm_partition: Annotated[str | None, Parameter(help="Partition of Slurm's jobs.")] = None
    slurm_time: Annotated[str, Parameter(help="Time limit of each of Slurm's tasks.")] = "24:00:00"
    dry_run: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print the scripts of Slurm; launch nothing.")
    ] = False

    def check(self, files: Sequence[str]) -> None:
        """Raises ArgumentsError for flags that contradict each other."""
        if (self.task is not None) + self.merge + (self.executor is not None) > 1:
            raise ArgumentsError(
                "--task writes one part, --merge joins all parts, and --executor does both; give one of them"
            )
        for flag, is_given in (("--task", self.task is not None), ("--executor", self.executor is not None)):
            if is_given and self.num_tasks is None:
                raise ArgumentsError(f"{flag} needs --num-tasks, the number of tasks that share the work")
        if self.num_tasks is not None and self.task is None and not self.merge and self.executor is None:
            raise ArgumentsError("--num-tasks needs --task, the part to write, --merge, or --executor")
        if self.dedup != "none" and self.executor is None:
            raise ArgumentsError("--dedup needs --executor: datatrove finds the duplicates")
        if self.filter and self.executor is None:
            raise ArgumentsError("--filter needs --executor: the filters are datatrove's")
        if self.executor == "slurm" and "-" in files:
            raise ArgumentsError("jobs of Slurm cannot read standard input, for they start later; save it to a file")
        if (self.dry_run or self.slurm_partition is not None) and self.executor != "slurm":
            raise ArgumentsError("--slurm-partition and --dry-run need --executor slurm")


NO_CLUSTER = ClusterFlags()


def prepare_by_executor(
    inputs: Sequence[str],
    tokenizer: Tokenizer,
    output: Path,
    flags: ClusterFlags,
    options: GivenOptions,
    *,
    workers: int | None,
    overwrite: bool,
    display: Display,
) -> ShardSet | None:
    """The shards; None if they are made by jobs of Slurm, whose scripts are printed on a dry run."""
    from tinyllm.cluster.prepare import prepare_on_cluster

    assert flags.executor is not None
    assert flags.num_tasks is not None
    result = prepare_on_cluster(
        inputs,
        tokenizer,
        output,
        executor=flags.executor,
        num_tasks=flags.num_tasks,
        options=options,
        num_workers=workers,
        duplicates=flags.dedup,
        filters=flags.filter,
        slurm_partition=flags.slurm_partition,
        slurm_time=flags.slurm_time,
        dry_run=flags.dry_run,
        overwrite=overwrite,
        reporter=display,
    )
    if isinstance(result, ShardSet):
        return result
    if flags.dry_run:
        show("\n".join(result))
    return None
