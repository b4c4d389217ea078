"""Makes the part of one task: `prepare_part`. `merge` joins the parts of all tasks into shards.

A part is whole or not there. A task that was stopped at any moment is done again from its beginning.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from tinyllm import storage
from tinyllm.addresses import is_address
from tinyllm.corpus.sources import file_name, list_sources
from tinyllm.corpus.split import check_fraction
from tinyllm.errors import ArtifactError, InputError, UsageError
from tinyllm.machine.signals import signals_as_errors
from tinyllm.progress import SILENT, Note, Progress, Reporter
from tinyllm.shards.details import NOTHING
from tinyllm.shards.encoding import EncodedTexts, dtype_for
from tinyllm.shards.parallel import encode_in_order
from tinyllm.shards.parts import BATCHES_NAME, INDEX_NAME, KIND, PartContent, PartDetails, part_path, parts_folder
from tinyllm.shards.pieces import Division, PieceBatch, read_batches
from tinyllm.shards.recipe import (
    GivenOptions,
    Options,
    bytes_of,
    check_options,
    content_of,
    digest_of_tokenizer,
    limit_workers,
    uncompressed_bytes,
)
from tinyllm.storage.remote.outputs import directory_output
from tinyllm.tokenizer.codec import Tokenizer

MOST_TASKS = 99_999
ReadBatches = Callable[["Share"], Iterator[PieceBatch]]
"""Gives the batches of a share, with those documents that are to be encoded."""


@dataclass(frozen=True)
class Share:
    """The share of one task in a corpus."""

    sources: Sequence[Path]
    sizes: Sequence[int]
    division: Division
    task: int
    num_tasks: int

    @property
    def own_places(self) -> list[int]:
        """The places of the files that the task reads."""
        return [place for piece in self.division.pieces_of(self.task) for place in piece.places]

    def batches(self, options: Options, note: Note) -> Iterator[PieceBatch]:
        """The batches of the task's documents, in their order."""
        documents, text_key = options.documents, options.text_key
        return read_batches(self.sources, self.division, self.task, documents=documents, text_key=text_key, note=note)


def find_share(inputs: Sequence[str | Path], task: int, num_tasks: int, reporter: Reporter = SILENT) -> Share:
    """The share of a task. Raises UsageError for a task that does not exist."""
    check_tasks(num_tasks)
    if not 0 <= task < num_tasks:
        raise UsageError(f"task is {task}; of {num_tasks} tasks it can be 0 to {num_tasks - 1}", parameter="task")
    sources = list_sources(inputs, reporter.note)
    sizes = [bytes_of(path) for path in sources]
    return Share(sources, sizes, Division(sizes, num_tasks), task, num_tasks)


def check_tasks(num_tasks: int) -> None:
    """Raises UsageError for a number of tasks out of range."""
    if not 1 <= num_tasks <= MOST_TASKS:
        raise UsageError(f"num_tasks is {num_tasks}; it can be 1 to {MOST_TASKS}", parameter="num_tasks")


def prepare_part(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    output: Path,
    *,
    task: int,
    num_tasks: int,
    num_workers: int | None = None,
    reporter: Reporter = SILENT,
    **given: Unpack[GivenOptions],
) -> Path:
    """Encodes the documents of one task and commits its part beside the shards `output`; returns the part's path.

    `inputs` and the options are those of `prepare`, and must be equal in all tasks. A part that is whole and made from
    the same files and options stays; any other one is replaced. Raises ArtifactError if something else than shards is
    at `output`.
    """
    if not is_address(output):
        # Not after hours of every task, when the merge finds something else at its output.
        storage.check_replaceable(output, "shards", overwrite=True)
    share = find_share(inputs, task, num_tasks, reporter)
    options = Options(digest_of_tokenizer(tokenizer), **given)

    def read(share: Share) -> Iterator[PieceBatch]:
        return share.batches(options, reporter.note)

    return write_part(share, options, tokenizer, output, read, num_workers=num_workers, reporter=reporter)


def write_part(
    share: Share,
    options: Options,
    tokenizer: Tokenizer,
    output: Path,
    read: ReadBatches,
    *,
    num_workers: int | None,
    search: str = "",
    reporter: Reporter,
) -> Path:
    """Commits the part of a share, whose batches `read` gives; `search` names the search for duplicates behind them."""
    check_options(tokenizer, num_workers, options.shard_tokens)
    check_fraction(options.validation_fraction)
    own = [share.sources[place] for place in share.own_places]
    details = PartDetails(
        format_version=1,
        task=share.task,
        num_tasks=share.num_tasks,
        dtype=dtype_for(tokenizer.vocab_size),
        options=options.as_dict(),
        listing_fingerprint=listing_fingerprint(share.sources, share.sizes),
        contents={place: content_of(share.sources[place]) for place in share.own_places},
        counts=NOTHING,
        search=search,
    )
    path = part_path(parts_folder(output), share.task, share.num_tasks)
    with directory_output(path, KIND, overwrite=True, note=reporter.note) as (place, _):
        if _is_whole(place, details):
            reporter.note(f"{path} is up to date: made from the same files, tokenizer and options")
            return path
        _set_damaged_aside(place, reporter)
        content = PartContent()
        batches = read(share)
        workers = limit_workers(num_workers, own)
        with (
            storage.commit_directory(place, KIND) as draft,
            closing(encode_in_order(batches, tokenizer, options.append_eos, workers)) as encoded,
        ):
            draft.write(BATCHES_NAME, content.records(_report(encoded, content, share, reporter)))
            draft.write(INDEX_NAME, "".join(content.index))
            draft.details = details.model_copy(update={"counts": content.counts}).model_dump()
    return path


def redoing_part(output: Path, task: int, num_tasks: int) -> AbstractContextManager[None]:
    """Around `prepare_part`: SIGINT and SIGTERM raise Interrupted, which says that the part is to be done again."""
    path = part_path(parts_folder(output), task, num_tasks)
    return signals_as_errors(f"stopped; {path} is not made; the same command makes it from its beginning")


def listing_fingerprint(sources: Sequence[Path], sizes: Sequence[int]) -> str:
    """SHA-256 over the names and sizes of all files of a corpus, in order."""
    digest = hashlib.sha256()
    for path, size in zip(sources, sizes, strict=True):
        digest.update(f"{file_name(path)!r} {size}\n".encode())
    return digest.hexdigest()


def _is_whole(path: Path, details: PartDetails) -> bool:
    """Whether the part is there, every byte of it, made from the same files and options."""
    try:
        found = PartDetails.model_validate(storage.verify(path, KIND).details)
    except (ArtifactError, InputError, ValueError):
        return False  # missing, damaged or of another kind: `commit_directory` replaces or refuses it
    return found.model_copy(update={"counts": details.counts}) == details


def _set_damaged_aside(path: Path, reporter: Reporter) -> None:
    """Renames a part whose manifest cannot be read, so that it can be done again."""
    if not (path / storage.MANIFEST_NAME).exists():
        return
    try:
        storage.scan_manifest(path)
    except ArtifactError as error:
        reporter.note(f"{error}; it is kept as {storage.set_aside(path)}")


def _report(
    encoded: Iterable[tuple[PieceBatch, EncodedTexts]], content: PartContent, share: Share, reporter: Reporter
) -> Iterator[tuple[PieceBatch, EncodedTexts]]:
    """Passes batches on and reports the totals of those that are written."""
    size = uncompressed_bytes(share.sources)
    total = None if size is None else size // share.num_tasks
    for each in encoded:
        yield each
        counts = {"documents": content.counts.documents, "tokens": content.counts.tokens}
        done = content.counts.text_bytes
        reporter.advance(Progress("encoding", done, None if total is None else max(total, done), "bytes", 0, counts))
