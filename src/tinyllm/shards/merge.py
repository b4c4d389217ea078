"""Joins the parts of all tasks into a shard directory: `merge_parts`. The bytes are those of `prepare` in one process.

The documents are not encoded again, and their split keys are in the parts. The files of the corpus are read once more
for their checksums, so that a part of other text is found.
"""

import heapq
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import numpy as np

from tinyllm import storage
from tinyllm.addresses import address, is_address, shown
from tinyllm.corpus.documents import no_documents
from tinyllm.corpus.sources import list_sources, printable
from tinyllm.corpus.split import (
    LEAST_DOCUMENTS,
    HashLabels,
    SplitRule,
    check_fraction,
    no_training,
    no_validation,
)
from tinyllm.errors import ArtifactError, InputError, MismatchError
from tinyllm.progress import SILENT, Note, Reporter
from tinyllm.shards.committing import check_output, commit_shards, is_up_to_date, report_progress
from tinyllm.shards.details import NOTHING, Counts
from tinyllm.shards.format import ShardSet
from tinyllm.shards.part_writer import check_tasks, listing_fingerprint
from tinyllm.shards.parts import (
    KIND,
    IndexEntry,
    Part,
    PartBatch,
    name_differences,
    numbers_of_tasks,
    part_path,
    parts_folder,
    tasks_in_words,
)
from tinyllm.shards.pieces import Division
from tinyllm.shards.recipe import (
    GivenOptions,
    Options,
    Recipe,
    bytes_of,
    check_options,
    content_of,
    digest_of_tokenizer,
    fingerprint_of_contents,
)
from tinyllm.shards.split_writers import LabelledTexts, SplitWriters
from tinyllm.storage.remote.fetch import fetch, find_committed
from tinyllm.tokenizer.codec import Tokenizer


def merge_parts(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    output: Path,
    *,
    num_tasks: int | None = None,
    folder: Path | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
    **given: Unpack[GivenOptions],
) -> ShardSet:
    """Joins the parts that `prepare_part` made from the same inputs and options, and commits `output`.

    `num_tasks` None means the number in the names of the parts. `folder` holds the parts, by default the one beside
    `output`. The parts are removed when the shards are whole. Like `prepare`, it goes on after an interruption, and
    raises its errors. Raises ArtifactError or MismatchError, which name the part, if one is missing, damaged, or made
    from other files or options.
    """
    options = Options(digest_of_tokenizer(tokenizer), **given)
    folder = folder or parts_folder(output)
    return join(inputs, tokenizer, output, options, folder, num_tasks, overwrite=overwrite, reporter=reporter)


def join(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    output: Path,
    options: Options,
    folder: Path,
    num_tasks: int | None,
    *,
    overwrite: bool,
    reporter: Reporter,
) -> ShardSet:
    """Joins the parts in `folder`, as `merge_parts` does."""
    check_options(tokenizer, None, options.shard_tokens)
    check_fraction(options.validation_fraction)
    sources = list_sources(inputs, reporter.note)
    contents = [content_of(path) for path in sources]
    recipe = Recipe(fingerprint_of_contents(zip(sources, contents, strict=True)), options)
    if is_up_to_date(output, recipe, reporter.note):
        return ShardSet.open(output)
    check_output(output, overwrite=overwrite)
    parts = _open_parts(folder, _number_of_tasks(folder, num_tasks), reporter.note)
    sizes = [bytes_of(path) for path in sources]
    listing = listing_fingerprint(sources, sizes)
    for task, part in enumerate(parts):
        with _naming(task, len(parts)):
            _check_part(part, options, listing, sources, contents)
            if part.details.search != parts[0].details.search:
                raise MismatchError(f"{part.path} and {parts[0].path} are of two searches for duplicates")
    counts = sum((part.details.counts for part in parts), NOTHING)
    if not counts.documents and options.filters is not None:
        raise InputError(f"the filters left no document of {len(sources)} file(s): {options.filters}")
    if not counts.documents:
        raise no_documents(sources)
    rule = _rule_of(options.validation_source, counts)
    division = Division(sizes, len(parts))

    def encode(writers: SplitWriters, finished: Counts) -> Generator[LabelledTexts, None, None]:
        labelled = _label(_in_order(parts, division), rule, options.validation_fraction, options.validation_source)
        rest = writers.skip_encoded(_require_training(labelled))
        yield from report_progress(rest, reporter, "merging", finished, counts.text_bytes)

    commit_shards(output, encode, rule, tokenizer, recipe, reporter.note)
    shards = ShardSet.open(output)
    _remove_parts(folder, parts, reporter.note)
    return shards


def _number_of_tasks(folder: Path, num_tasks: int | None) -> int:
    """The number of tasks whose parts are to be joined."""
    if num_tasks is not None:
        check_tasks(num_tasks)
        return num_tasks
    found = numbers_of_tasks(folder)
    if not found:
        raise ArtifactError(
            f"{shown(folder)} has no parts to merge", hint="make each with: `prepare_part(task=0, num_tasks=4)`"
        )
    if len(found) > 1:
        raise MismatchError(
            f"{shown(folder)} has parts of {' and of '.join(map(str, found))} tasks",
            hint=f"choose one number, such as `num_tasks={found[-1]}`",
        )
    return found[0]


def _open_parts(folder: Path, num_tasks: int, note: Note) -> list[Part]:
    """The parts of all tasks. Raises ArtifactError, which names those that are missing, or the first damaged one."""
    paths = [part_path(folder, task, num_tasks) for task in range(num_tasks)]
    missing = [task for task, path in enumerate(paths) if not _is_there(path, note)]
    if missing:
        raise ArtifactError(
            f"{shown(paths[missing[0]])} is missing: of {num_tasks} tasks, {len(missing)} left no part "
            f"({tasks_in_words(missing)})",
            hint=f"make it with: `prepare_part(task={missing[0]}, num_tasks={num_tasks})`",
        )
    parts = []
    for task, path in enumerate(paths):
        with _naming(task, num_tasks):
            parts.append(Part(fetch(path, note=note)))
    return parts


def _is_there(path: Path, note: Note) -> bool:
    place = address(path)
    return path.exists() if place is None else find_committed(place, note) is not None


def _check_part(part: Part, options: Options, listing: str, sources: Sequence[Path], contents: Sequence[str]) -> None:
    """Raises MismatchError if a part was made from other files, by another tokenizer, or with other options."""
    details = part.details
    reason = name_differences(details.options, options.as_dict())
    if part.path.name != part_path(Path(), details.task, details.num_tasks).name:
        reason = f"task={details.task} of num_tasks={details.num_tasks}, under another name"
    elif not reason and details.listing_fingerprint != listing:
        reason = "files of other names or sizes"
    elif not reason:
        changed = [place for place, content in details.contents.items() if contents[place] != content]
        if changed:
            reason = f"another content of {printable(sources[changed[0]])}"
    if reason:
        raise MismatchError(f"{part.path} does not belong to this corpus: it was made with {reason}")


def _rule_of(validation_source: str | None, counts: Counts) -> SplitRule:
    if validation_source is not None:
        return "source"
    return "position" if counts.documents < LEAST_DOCUMENTS else "hash"


def _in_order(parts: Sequence[Part], division: Division) -> Iterator[PartBatch]:
    """The batches of all parts in the order of the corpus; the index of a part is in memory while it is needed."""
    indexes: dict[int, deque[tuple[IndexEntry, int]]] = {}
    for piece in division.pieces:
        for task in [task for task in indexes if task < piece.tasks.start]:
            del indexes[task]
        for task in piece.tasks:
            if task not in indexes:
                with _naming(task, len(parts)):
                    indexes[task] = deque(parts[task].read_index())
        streams = [_batches_of(piece.number, task, indexes[task]) for task in piece.tasks]
        for entry, offset, task in heapq.merge(*streams, key=lambda found: found[0].batch):
            with _naming(task, len(parts)):
                batch = parts[task].read(entry, offset)
            yield batch


def _batches_of(piece: int, task: int, index: deque[tuple[IndexEntry, int]]) -> Iterator[tuple[IndexEntry, int, int]]:
    """Takes the batches of a piece from the beginning of an index: entry, offset and task."""
    while index and index[0][0].piece == piece:
        yield *index.popleft(), task


def _label(
    batches: Iterator[PartBatch], rule: SplitRule, fraction: float, validation_source: str | None
) -> Iterator[LabelledTexts]:
    """Labels the documents as `split_documents` does."""
    if rule == "hash":
        yield from _label_by_hash(batches, fraction)
        return
    found = False
    for batch in batches:
        labelled = LabelledTexts(batch.texts, batch.sources, np.array(batch.sources) == validation_source)
        found = found or bool(labelled.are_validation.any())
        yield labelled
    if validation_source is not None and not found:
        raise no_validation(validation_source)


def _label_by_hash(batches: Iterator[PartBatch], fraction: float) -> Iterator[LabelledTexts]:
    """Labels document by document until one has a key below the fraction, then batch by batch."""
    labels = HashLabels[PartBatch](fraction)
    for batch in batches:
        if labels.hold_no_more:
            yield LabelledTexts(batch.texts, batch.sources, batch.keys < fraction)
            continue
        for document, key in zip(batch.split(), batch.keys.tolist(), strict=True):
            yield from (_as_labelled(*pair) for pair in labels.label(document, key))
    yield from (_as_labelled(*pair) for pair in labels.rest())


def _as_labelled(document: PartBatch, is_validation: bool) -> LabelledTexts:
    return LabelledTexts(document.texts, document.sources, np.array([is_validation]))


def _require_training(labelled: Iterable[LabelledTexts]) -> Iterator[LabelledTexts]:
    num_train = num_validation = 0
    for each in labelled:
        num_validation += int(each.are_validation.sum())
        num_train += int((~each.are_validation).sum())
        yield each
    if not num_train:
        raise no_training(num_validation)


def _remove_parts(folder: Path, parts: Sequence[Part], note: Note) -> None:
    """Removes parts whose shards are whole; files of somebody else stay."""
    if is_address(folder):
        note(f"the parts at {shown(folder)} are not needed any more")
        return
    for part in parts:
        storage.remove_directory(part.path, KIND)
    if not any(folder.iterdir()):
        storage.disk.remove_empty_directory(folder)


@contextmanager
def _naming(task: int, num_tasks: int) -> Iterator[None]:
    """Adds to an error about a part the call that makes it again."""
    try:
        yield
    except (ArtifactError, InputError, MismatchError) as error:
        hint = f"make it again with: `prepare_part(task={task}, num_tasks={num_tasks})`"
        raise type(error)(error.message, hint=hint) from None
