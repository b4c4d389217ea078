"""Makes a shard directory from text files: `prepare`.

This process reads and splits the text, all processes encode, and shards are cut at document boundaries in the order of
the corpus. So the bytes depend only on the sources, the tokenizer and the options. The number of processes and
interruptions do not matter; finished shards are kept after an interruption. `corpus` reads the text formats.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

from tinyllm import storage
from tinyllm.addresses import address
from tinyllm.corpus.documents import Document, read_documents
from tinyllm.corpus.formats import format_of_named
from tinyllm.corpus.sources import STANDARD_INPUT, file_name, list_sources, unreadable
from tinyllm.corpus.split import VALIDATION_FRACTION, SplitRule, split_documents
from tinyllm.corpus.text import DocumentRule
from tinyllm.errors import ArtifactError, InputError, UsageError
from tinyllm.machine.device import num_available_cores
from tinyllm.machine.signals import signals_as_errors
from tinyllm.progress import SILENT, Progress, Reporter
from tinyllm.shards.details import Counts, ShardDetails
from tinyllm.shards.encoding import Batch, EncodedTexts, dtype_for
from tinyllm.shards.format import ShardSet
from tinyllm.shards.journal import JOURNAL_NAME, Journal
from tinyllm.shards.parallel import encode_in_order
from tinyllm.shards.split_writers import SplitWriters
from tinyllm.storage.remote.listing import size_of, version_of
from tinyllm.tokenizer.codec import Tokenizer

BATCH_CHARACTERS = 2**20
PROCESS_BYTES = 2**21
"""Bytes of text per process: starting a process takes as long as encoding a few times this amount."""
MOST_WORKERS = 1024
"""Limit of worker processes, each of which has its own memory."""
SHARD_TOKENS = 2**24


@dataclass(frozen=True)
class Recipe:
    """All inputs that decide the bytes of a shard directory."""

    source_fingerprint: str
    tokenizer_sha256: str
    documents: DocumentRule
    text_key: str | None
    validation_fraction: float
    append_eos: bool
    shard_tokens: int
    validation_source: str | None = None

    @property
    def fingerprint(self) -> str:
        # None is left out, so that shards made before this field existed remain up to date.
        fields = {name: value for name, value in vars(self).items() if name != "validation_source" or value is not None}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def prepare(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    output: Path,
    *,
    documents: DocumentRule = "auto",
    text_key: str | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    validation_source: str | None = None,
    append_eos: bool = False,
    num_workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> ShardSet:
    """Encodes the documents of `inputs` and commits `output`; resumes after an interruption.

    `num_workers` None means one process a core. An `output` made from the same inputs and options stays unchanged.
    `reporter` receives the progress after each batch.
    With `validation_source` (a `Document.source`), that source is for validation, and each source becomes one shard
    with its name and any size: the layout of llama2.c.
    Raises InputError naming a file that cannot be used, ArtifactError if `output` cannot be written, or if it exists
    without `overwrite`.
    """
    _check_options(tokenizer, num_workers, shard_tokens)
    sources = list_sources(inputs)
    recipe = Recipe(
        fingerprint_of(sources),
        hashlib.sha256(b"".join(tokenizer.files.values())).hexdigest(),
        documents,
        text_key,
        validation_fraction,
        append_eos,
        shard_tokens,
        validation_source,
    )
    if _is_up_to_date(output, recipe):
        storage.remove_dead_drafts_of(output)
        reporter.note(f"{output} is up to date: made from the same files, tokenizer and options")
        return ShardSet.open(output)
    storage.check_replaceable(output, "shards", overwrite=overwrite)
    storage.check_writable(output)
    read = read_documents(inputs, documents=documents, text_key=text_key, note=reporter.note)
    rule, labelled = split_documents(read, validation_fraction, validation_source)
    _commit(
        output,
        labelled,
        rule,
        tokenizer,
        recipe,
        num_workers=_limit_workers(num_workers, sources),
        source_bytes=_uncompressed_bytes(sources),
        reporter=reporter,
    )
    return ShardSet.open(output)


def keeping_finished_shards(output: Path) -> AbstractContextManager[None]:
    """Around `prepare` into `output`: SIGINT and SIGTERM raise Interrupted; finished shards stay in the draft."""
    return signals_as_errors(f"stopped; finished shards of {output} are kept; the same command goes on from them")


def _commit(
    output: Path,
    labelled: Iterator[tuple[Document, bool]],
    rule: SplitRule,
    tokenizer: Tokenizer,
    recipe: Recipe,
    *,
    num_workers: int,
    source_bytes: int | None,
    reporter: Reporter,
) -> None:
    """Commits `output`; after an interruption, its draft keeps the finished shards."""
    # A split by position is known only at the end of the corpus, so it cannot be resumed.
    can_resume = rule != "position"
    with storage.commit_directory(output, "shards", resumable=True, with_stamps=True) as draft:
        journal = Journal(draft.path, recipe.fingerprint, keep=can_resume, note=reporter.note)
        draft.temporary_names.add(JOURNAL_NAME)
        try:
            _write_shards(
                labelled,
                rule,
                tokenizer,
                recipe,
                journal,
                num_workers=num_workers,
                source_bytes=source_bytes,
                reporter=reporter,
            )
        finally:
            draft.keep = can_resume and bool(journal.entries)
        for name, content in tokenizer.files.items():
            draft.write(name, content)
        draft.sha256 = journal.sha256
        draft.details = _details(tokenizer, recipe, rule, journal).model_dump()


def _write_shards(
    labelled: Iterator[tuple[Document, bool]],
    rule: SplitRule,
    tokenizer: Tokenizer,
    recipe: Recipe,
    journal: Journal,
    *,
    num_workers: int,
    source_bytes: int | None,
    reporter: Reporter,
) -> None:
    """Encodes the documents that finished shards lack, and adds their shards to `journal`."""
    shard_tokens = None if rule == "source" else recipe.shard_tokens
    writers = SplitWriters(journal, dtype_for(tokenizer.vocab_size), shard_tokens)
    batches = _make_batches(writers.skip_finished(labelled))
    with closing(journal), closing(encode_in_order(batches, tokenizer, recipe.append_eos, num_workers)) as encoded:
        observed = _report_progress(encoded, reporter, journal.counts, source_bytes)
        if rule == "hash":
            writers.write_by_label(observed)
        elif rule == "source":
            writers.write_by_source(observed)
        else:
            reporter.note(writers.write_by_position(observed, tokenizer))


def _details(tokenizer: Tokenizer, recipe: Recipe, rule: SplitRule, journal: Journal) -> ShardDetails:
    return ShardDetails(
        format_version=2,
        vocab_size=tokenizer.vocab_size,
        dtype=dtype_for(tokenizer.vocab_size),
        tokenizer_fingerprint=tokenizer.fingerprint,
        source_fingerprint=recipe.source_fingerprint,
        recipe_fingerprint=recipe.fingerprint,
        split_rule=rule,
        validation_fraction=recipe.validation_fraction,
        append_eos=recipe.append_eos,
        shards=sorted(journal.entries, key=lambda entry: entry.name),
    )


def fingerprint_of(sources: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in order. Raises InputError for a file that cannot be read.

    An object at an address is not read for it: the version that its server tells stands for the content.
    """
    digest = hashlib.sha256()
    for path in sources:
        if (place := address(path)) is not None:
            digest.update(f"{file_name(path)!r} {version_of(place)}\n".encode())
            continue
        if path == STANDARD_INPUT or (path.exists() and not path.is_file()):
            name = "standard input" if path == STANDARD_INPUT else path
            raise UsageError(f"prepare reads its files twice, which {name} does not allow; save its text to a file")
        try:
            content = storage.sha256_of(path)
        except OSError as error:
            raise unreadable(path, error) from None
        digest.update(f"{path.name!r} {content}\n".encode())
    return digest.hexdigest()


def _make_batches(labelled: Iterable[tuple[Document, bool]]) -> Iterator[Batch]:
    """Batches of about BATCH_CHARACTERS characters; a longer document is a batch of its own."""
    pairs, num_characters = [], 0
    for pair in labelled:
        pairs.append(pair)
        num_characters += len(pair[0].text)
        if num_characters >= BATCH_CHARACTERS:
            yield _batch_of(pairs)
            pairs, num_characters = [], 0
    if pairs:
        yield _batch_of(pairs)


def _batch_of(pairs: Sequence[tuple[Document, bool]]) -> Batch:
    return Batch([document for document, _ in pairs], [is_validation for _, is_validation in pairs])


def _report_progress(
    encoded: Iterable[tuple[Batch, EncodedTexts]],
    reporter: Reporter,
    finished: Counts,
    source_bytes: int | None,
) -> Iterator[tuple[Batch, EncodedTexts]]:
    """Passes batches on and reports running totals after each, counted from `finished`.

    The bytes are those of the documents' text: fewer than `source_bytes`, the size of the files (None if compressed).
    """
    documents, tokens, text_bytes = finished.documents, finished.tokens, finished.text_bytes
    for batch, texts in encoded:
        yield batch, texts
        documents += len(texts.lengths)
        tokens += len(texts.ids)
        text_bytes += int(texts.text_bytes.sum())
        counts = {"documents": documents, "tokens": tokens}
        reporter.advance(Progress("encoding", text_bytes, source_bytes, "bytes", finished.text_bytes, counts))


def _is_up_to_date(output: Path, recipe: Recipe) -> bool:
    """Whether `output` is a complete shard directory made by this recipe."""
    try:
        manifest = storage.scan_manifest(output, "shards", "changed", on_item=storage.leave_out)
    except (ArtifactError, InputError):
        return False  # missing or incomplete; `check_replaceable` names the fault
    return manifest.details.get("recipe_fingerprint") == recipe.fingerprint


def _limit_workers(num_workers: int | None, sources: Sequence[Path]) -> int:
    """The number of processes: `num_workers` (None: one a core), but at most one per PROCESS_BYTES of text."""
    if num_workers is None:
        num_workers = num_available_cores()
    plain = _uncompressed_bytes(sources)
    return num_workers if plain is None else max(1, min(num_workers, plain // PROCESS_BYTES))


def _uncompressed_bytes(sources: Iterable[Path]) -> int | None:
    """Total bytes of all sources; None if one is compressed, because its size says little about its text."""
    size = 0
    for path in sources:
        file_format = format_of_named(file_name(path))
        if file_format.compression != "none" or file_format.content in ("parquet", "zip"):
            return None
        place = address(path)
        size += path.stat().st_size if place is None else size_of(place)
    return size


def _check_options(tokenizer: Tokenizer, num_workers: int | None, shard_tokens: int) -> None:
    if tokenizer.bos_id is None:
        raise InputError(f"{tokenizer.name} has no BOS token, which begins each document; use another tokenizer")
    if num_workers is not None and not 1 <= num_workers <= MOST_WORKERS:
        raise UsageError(f"num_workers is {num_workers}; it can be 1 to {MOST_WORKERS}", parameter="num_workers")
    if shard_tokens < 1:
        raise UsageError(f"shard_tokens is {shard_tokens}; at least 1 is needed", parameter="shard_tokens")
