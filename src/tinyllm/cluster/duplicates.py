"""The stages that find and remove duplicates: datatrove's exact and MinHash steps around our reader.

Each search signs the documents of every task, finds duplicates among the signatures, and removes all copies but one.
Which copy stays may depend on the number of tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.hashing import HashConfig

from tinyllm.cluster.words import Words

Duplicates = Literal["none", "exact", "near"]
# SHA-1 needs no package beside datatrove.
HASHES = HashConfig(precision=64, hash_fc="sha1")


@dataclass(frozen=True)
class Stage:
    """One pipeline, which a number of tasks run."""

    name: str
    pipeline: list[PipelineStep]
    num_tasks: int
    keeps_completed: bool = True
    """Whether a task that was completed is not run again; the writer of parts decides that itself."""


def text_of(document: Document) -> str:
    """The text, which exact duplicates share."""
    return str(document.text)


def duplicate_stages(
    kind: Duplicates, folder: Path, read: Callable[[], list[PipelineStep]], num_tasks: int
) -> tuple[list[Stage], list[PipelineStep]]:
    """The stages of a search, and the steps that remove what it found; `read` gives new steps that read documents."""
    signatures, found, removed = (folder / name for name in ("signatures", "found", "removed"))
    if kind == "none":
        return [], []
    if kind == "exact":
        exact = ExactDedupConfig(content_getter=text_of, hash_config=HASHES)
        return [
            Stage("signatures", [*read(), ExactDedupSignature(str(signatures), exact)], num_tasks),
            Stage("duplicates", [ExactFindDedups(str(signatures), str(found), exact)], 1),
        ], [ExactDedupFilter(str(found), exact)]
    near = MinhashConfig(hash_config=HASHES)
    return [
        Stage("signatures", [*read(), MinhashDedupSignature(str(signatures), near, language=Words())], num_tasks),
        Stage("buckets", [MinhashDedupBuckets(str(signatures), str(found), config=near)], near.num_buckets),
        Stage("clusters", [MinhashDedupCluster(str(found), str(removed), near)], 1),
    ], [MinhashDedupFilter(str(removed))]
