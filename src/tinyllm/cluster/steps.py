"""The steps of a datatrove pipeline that are ours: the reader of a task's share, the writer of its part, the merge.

Between reader and writer stand filters of datatrove, which leave documents out. The reader notes the batch of each
document, so that the merge puts what is left in the order of the corpus.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from datatrove.data import Document as PipelineDocument
from datatrove.pipeline.base import PipelineStep

from tinyllm import storage
from tinyllm.corpus.documents import Document
from tinyllm.progress import SILENT, Reporter
from tinyllm.shards.merge import join
from tinyllm.shards.part_writer import Share, find_share, write_part
from tinyllm.shards.parts import parts_folder
from tinyllm.shards.pieces import PieceBatch
from tinyllm.shards.recipe import Options
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.opening import tokenizer_of_files

MARK_NAME = "tinyllm-work.json"
LOGS_NAME = "logs"


@dataclass(frozen=True)
class Job:
    """One call of `prepare_on_cluster`, as every task receives it."""

    inputs: Sequence[str]
    output: Path
    tokenizer_files: dict[str, bytes]
    tokenizer_name: str
    options: Options
    num_tasks: int
    search: str
    """The key of the search for duplicates; empty without one."""
    overwrite: bool
    work: Path
    """The folder of datatrove's logs and of what its steps exchange."""

    @property
    def tokenizer(self) -> Tokenizer:
        return tokenizer_of_files(self.tokenizer_files, self.tokenizer_name)


class ReadShare(PipelineStep):  # type: ignore[misc]
    """Reads the documents of a task's share of the corpus."""

    type = "READER"
    name = "share of a task"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[PipelineDocument]:
        """The documents, with piece, batch and source in their metadata."""
        share = find_share(self.job.inputs, rank, world_size)
        for batch in share.batches(self.job.options, SILENT.note):
            for place, document in enumerate(batch.documents):
                self.stat_update("documents")
                metadata = {"piece": batch.piece, "batch": batch.number, "source": document.source}
                yield PipelineDocument(document.text, f"{batch.piece}/{batch.number}/{place}", metadata=metadata)


class WritePart(PipelineStep):  # type: ignore[misc]
    """Encodes the documents that are left and commits the task's part."""

    type = "WRITER"
    name = "part of a task"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Writes the part of the task `rank`; one that is whole is left as it is, and nothing is read then."""
        share = find_share(self.job.inputs, rank, world_size)

        def read(_: Share) -> Iterator[PieceBatch]:
            return regroup(data)

        write_part(
            share,
            self.job.options,
            self.job.tokenizer,
            self.job.output,
            read,
            num_workers=1,
            search=self.job.search,
            reporter=SILENT,
        )


class JoinParts(PipelineStep):  # type: ignore[misc]
    """Joins the parts of all tasks into the shards; a stage of one task."""

    type = "WRITER"
    name = "merge of all parts"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Commits the shards, and removes what the steps exchanged; the log of this task is still open."""
        join_parts(self.job)
        clear_work(self.job.work, keep=(LOGS_NAME,))


def join_parts(job: Job, reporter: Reporter = SILENT) -> None:
    """Joins the parts of a job."""
    folder = parts_folder(job.output)
    join(
        job.inputs,
        job.tokenizer,
        job.output,
        job.options,
        folder,
        job.num_tasks,
        overwrite=job.overwrite,
        reporter=reporter,
    )


def mark_work(folder: Path) -> None:
    """Makes the folder of the work, with the mark that allows its removal."""
    storage.write_file(folder / MARK_NAME, json.dumps({"work": folder.name}) + "\n")


def clear_work(folder: Path, keep: Sequence[str] = ()) -> None:
    """Removes what a folder that carries our mark holds but for the names in `keep`; an emptied folder goes too.

    The folder of parts above it is removed if nothing else is there.
    """
    if not (folder / MARK_NAME).exists():
        return
    if not keep:
        storage.disk.remove_tree(folder)
        if not any(folder.parent.iterdir()):
            storage.disk.remove_empty_directory(folder.parent)
        return
    for path in folder.iterdir():
        if path.is_dir() and path.name not in keep:
            storage.disk.remove_tree(path)


def regroup(data: Iterator[PipelineDocument]) -> Iterator[PieceBatch]:
    """The batches of the reader, without the documents that were left out, and without those that have no text left."""
    for (piece, batch), found in groupby(
        data, lambda document: (document.metadata["piece"], document.metadata["batch"])
    ):
        texts = ((document.text.strip(), document.metadata["source"]) for document in found)
        documents = [Document(text, source) for text, source in texts if text]
        if documents:
            yield PieceBatch(documents, piece=piece, number=batch)
