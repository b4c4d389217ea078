"""`prepare_on_cluster`: the shards of `prepare`, made by tasks of datatrove, filtered and without duplicates."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.addresses import address, refuse_address
from tinyllm.corpus.sources import list_sources
from tinyllm.errors import UsageError
from tinyllm.machine.device import num_available_cores
from tinyllm.progress import SILENT, Reporter
from tinyllm.shards.committing import check_output, is_up_to_date
from tinyllm.shards.format import ShardSet
from tinyllm.shards.part_writer import check_tasks
from tinyllm.shards.parts import parts_folder
from tinyllm.shards.recipe import (
    GivenOptions,
    Options,
    Recipe,
    bytes_of,
    check_options,
    content_of,
    digest_of_tokenizer,
    fingerprint_of,
)
from tinyllm.tokenizer.codec import Tokenizer

if TYPE_CHECKING:
    from tinyllm.cluster.duplicates import Duplicates
    from tinyllm.cluster.executors import ExecutorName

NEEDS_EXTRA = "executor needs datatrove: pip install 'tinyllm[cluster]'"


def prepare_on_cluster(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    output: Path,
    *,
    executor: "ExecutorName",
    num_tasks: int,
    options: GivenOptions,
    num_workers: int | None = None,
    duplicates: "Duplicates" = "none",
    filters: Sequence[Any] = (),
    slurm_partition: str | None = None,
    slurm_time: str = "24:00:00",
    dry_run: bool = False,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> ShardSet | list[str]:
    """Encodes the documents of `inputs` in `num_tasks` tasks and joins their parts into the shards `output`.

    options      those of `prepare` that decide the bytes: documents, text_key, validation_fraction, append_eos,
                 shard_tokens
    num_workers  tasks that run at a time; None means one a core, and all of them on Slurm
    duplicates   "exact" removes copies of a text, "near" also texts that are nearly equal (datatrove's MinHash)
    filters      steps of datatrove that leave documents out before duplicates are looked for; or their names, as
                 `filters.make_filter` takes them
    dry_run      makes the scripts of Slurm, and launches nothing

    On Slurm the merge is the last job: the result is the scripts of the jobs, not the shards. The same call goes on
    after a stop. Raises UsageError without the extra `cluster`, and the errors of `prepare_part` and `merge_parts`.
    """
    try:
        from tinyllm.cluster.duplicates import Stage, duplicate_stages
        from tinyllm.cluster.executors import Slurm, check_slurm, run_here, run_on_ray, run_on_slurm
        from tinyllm.cluster.filters import in_words, make_filter
        from tinyllm.cluster.steps import Job, JoinParts, ReadShare, WritePart, clear_work, join_parts, mark_work
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("datatrove", "ray", "regex"):
            raise
        raise UsageError(NEEDS_EXTRA, parameter="executor") from None

    check_tasks(num_tasks)
    refuse_address(output)
    steps = [make_filter(each) if isinstance(each, str) else each for each in filters]
    chosen = Options(
        digest_of_tokenizer(tokenizer),
        **options,
        duplicates=None if duplicates == "none" else duplicates,
        filters=", ".join(map(in_words, steps)) or None,
    )
    check_options(tokenizer, num_workers, chosen.shard_tokens)
    work = _work_folder(inputs, output.absolute(), chosen, num_tasks)
    if output.exists():
        recipe = Recipe(fingerprint_of(list_sources(inputs)), chosen)
        if is_up_to_date(output, recipe, reporter.note):
            clear_work(work)
            return ShardSet.open(output)
    check_output(output, overwrite=overwrite)
    slurm = Slurm(slurm_partition, slurm_time, only_scripts=dry_run)
    if executor == "slurm":
        check_slurm(slurm)
    search = "" if duplicates == "none" else work.name
    places = [str(path) if path == "-" or address(path) else str(Path(path).absolute()) for path in inputs]
    job = Job(places, output.absolute(), tokenizer.files, tokenizer.name, chosen, num_tasks, search, overwrite, work)
    stages, removal = duplicate_stages(duplicates, work, lambda: [ReadShare(job), *steps], num_tasks)
    stages.append(Stage("parts", [ReadShare(job), *steps, *removal, WritePart(job)], num_tasks, False))
    is_new = not work.exists()
    mark_work(work)
    if executor == "slurm":
        stages.append(Stage("merge", [JoinParts(job)], 1, False))
        scripts = run_on_slurm(stages, work, num_workers or num_tasks, slurm, reporter.note)
        if dry_run and is_new:
            clear_work(work)  # datatrove makes folders for logs with each script
        return scripts
    run = run_on_ray if executor == "ray" else run_here
    run(stages, work, num_workers or num_available_cores(), reporter.note)
    join_parts(job, reporter)
    clear_work(work)
    return ShardSet.open(output)


def _work_folder(inputs: Sequence[str | Path], output: Path, options: Options, num_tasks: int) -> Path:
    """The folder of datatrove's logs and signatures: another one for other files, options or tasks."""
    digest = hashlib.sha256(json.dumps([options.as_dict(), num_tasks], sort_keys=True).encode())
    for path in list_sources(inputs):
        version = content_of(path) if address(path) else path.stat().st_mtime_ns
        digest.update(f"{path.name!r} {bytes_of(path)} {version}\n".encode())
    return parts_folder(output) / f"work-{digest.hexdigest()[:12]}"
