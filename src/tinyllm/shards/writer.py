"""Makes a shard directory from text files: `prepare`.

This process reads and splits the text, all processes encode, and shards are cut at document boundaries in the order of
the corpus. So the bytes depend only on the sources, the tokenizer and the options. The number of processes and
interruptions do not matter; finished shards are kept after an interruption. `corpus` reads the text formats.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tinyllm import storage
from tinyllm.corpus.documents import Document, read_documents
from tinyllm.corpus.formats import format_of_named
from tinyllm.corpus.sources import STANDARD_INPUT, list_sources, unreadable
from tinyllm.corpus.split import VALIDATION_FRACTION, split_documents
from tinyllm.corpus.text import DocumentRule
from tinyllm.errors import ArtifactError, InputError, UsageError
from tinyllm.machine.device import num_available_cores
from tinyllm.progress import SILENT, Progress, Reporter
from tinyllm.shards.encoding import Batch, EncodedTexts, Lengths, Tokens, dtype_for
from tinyllm.shards.format import (
    POSITION_PARTS,
    Counts,
    ShardDetails,
    ShardEntry,
    ShardSet,
    SplitName,
    count_tokens,
)
from tinyllm.shards.journal import JOURNAL_NAME, Journal, shard_name, source_shard_name
from tinyllm.shards.parallel import encode_in_order
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
    with storage.commit_directory(output, "shards", resumable=True, with_stamps=True) as draft:
        # A split by position is known only at the end of the corpus, so it cannot be resumed.
        journal = Journal(draft.path, recipe.fingerprint, keep=rule != "position", note=reporter.note)
        draft.temporary_names.add(JOURNAL_NAME)
        writers = _SplitWriters(journal, dtype_for(tokenizer.vocab_size), None if rule == "source" else shard_tokens)
        batches = _make_batches(writers.skip_finished(labelled))
        processes = _limit_workers(num_workers, sources)
        try:
            with closing(journal), closing(encode_in_order(batches, tokenizer, append_eos, processes)) as encoded:
                observed = _report_progress(encoded, reporter, journal.counts, _uncompressed_bytes(sources))
                if rule == "hash":
                    writers.write_by_label(observed)
                elif rule == "source":
                    writers.write_by_source(observed)
                else:
                    reporter.note(writers.write_by_position(observed, tokenizer))
        finally:
            draft.keep = rule != "position" and bool(journal.entries)
        for name, content in tokenizer.files.items():
            draft.write(name, content)
        draft.sha256 = journal.sha256
        draft.details = ShardDetails(
            format_version=2,
            vocab_size=tokenizer.vocab_size,
            dtype=dtype_for(tokenizer.vocab_size),
            tokenizer_fingerprint=tokenizer.fingerprint,
            source_fingerprint=recipe.source_fingerprint,
            recipe_fingerprint=recipe.fingerprint,
            split_rule=rule,
            validation_fraction=validation_fraction,
            append_eos=append_eos,
            shards=sorted(journal.entries, key=lambda entry: entry.name),
        ).model_dump()
    return ShardSet.open(output)


def fingerprint_of(sources: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in order. Raises InputError for a file that cannot be read."""
    digest = hashlib.sha256()
    for path in sources:
        if path == STANDARD_INPUT or (path.exists() and not path.is_file()):
            name = "standard input" if path == STANDARD_INPUT else path
            raise UsageError(f"prepare reads its files twice, which {name} does not allow; save its text to a file")
        try:
            content = storage.sha256_of(path)
        except OSError as error:
            raise unreadable(path, error) from None
        digest.update(f"{path.name!r} {content}\n".encode())
    return digest.hexdigest()


class _ShardWriter:
    """Collects the documents of one split and writes each full shard."""

    def __init__(self, split: SplitName, journal: Journal, dtype: str, shard_tokens: int) -> None:
        self._split: SplitName = split
        self._journal = journal
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shard_tokens = shard_tokens
        self._tokens: list[Tokens] = []
        self._lengths: list[Lengths] = []
        self._num_tokens, self._num_bytes = 0, 0
        self._name: str | None = None

    def name_next(self, name: str) -> None:
        """Names the next shard, in place of a number."""
        self._name = name

    def add(self, tokens: Tokens, lengths: Lengths, text_bytes: Lengths) -> None:
        """Adds documents. A shard exceeds its size only if it consists of one longer document."""
        ends = np.cumsum(lengths)
        first, first_token = 0, 0
        while first < len(lengths):
            end = first_token + self._shard_tokens - self._num_tokens
            stop = max(int(np.searchsorted(ends, end, side="right")), first if self._lengths else first + 1)
            if stop > first:
                stop_token = int(ends[stop - 1])
                # The copy matters: a view would keep the whole batch in memory.
                self._tokens.append(tokens[first_token:stop_token].astype(self._dtype))
                self._lengths.append(lengths[first:stop])
                self._num_tokens += stop_token - first_token
                self._num_bytes += int(text_bytes[first:stop].sum())
                first, first_token = stop, stop_token
            if first < len(lengths):
                self.flush()

    def flush(self) -> None:
        """Writes the collected documents as one shard."""
        if not self._lengths:
            return
        lengths = np.concatenate(self._lengths)
        counts = Counts(documents=len(lengths), tokens=self._num_tokens, text_bytes=self._num_bytes)
        name = self._name or shard_name(self._split, self._journal.entries)
        entry = ShardEntry(name=name, split=self._split, counts=counts)
        ends = np.cumsum(lengths).astype("<u8")
        tokens = np.concatenate(self._tokens)
        self._journal.add(entry, {f"{entry.name}.bin": tokens.tobytes(), f"{entry.name}.idx": ends.tobytes()})
        self._tokens, self._lengths, self._num_tokens, self._num_bytes = [], [], 0, 0


class _SplitWriters:
    """Writes both splits, each in the order of the corpus."""

    def __init__(self, journal: Journal, dtype: str, shard_tokens: int | None) -> None:
        """With `shard_tokens` None, a shard ends where its source ends, at any size."""
        self._journal = journal
        shard_tokens = shard_tokens or sys.maxsize
        self._train = _ShardWriter("train", journal, dtype, shard_tokens)
        self._validation = _ShardWriter("validation", journal, dtype, shard_tokens)

    def skip_finished(self, labelled: Iterable[tuple[Document, bool]]) -> Iterator[tuple[Document, bool]]:
        """Drops the documents in finished shards of an earlier run, which are the first documents of each split."""
        finished = {True: self._journal.num_documents("validation"), False: self._journal.num_documents("train")}
        for document, is_validation in labelled:
            if finished[is_validation]:
                finished[is_validation] -= 1
            else:
                yield document, is_validation

    def write_by_label(self, encoded: Iterable[tuple[Batch, EncodedTexts]]) -> None:
        """Writes each document to the split of its label."""
        for batch, texts in encoded:
            are_validation = np.array(batch.are_validation)
            for writer, selected in ((self._train, ~are_validation), (self._validation, are_validation)):
                ids = texts.ids[np.repeat(selected, texts.lengths)]
                writer.add(ids, texts.lengths[selected], texts.text_bytes[selected])
        self._flush()

    def write_by_source(self, encoded: Iterable[tuple[Batch, EncodedTexts]]) -> None:
        """Writes each source as one shard of the split that its documents' labels name."""
        source = None
        for batch, texts in encoded:
            ends = np.cumsum(texts.lengths)
            for first, stop in _runs([document.source for document in batch.documents]):
                writer = self._validation if batch.are_validation[first] else self._train
                if batch.documents[first].source != source:
                    self._flush()
                    source = batch.documents[first].source
                    writer.name_next(source_shard_name(source, self._journal.entries))
                start = int(ends[first - 1]) if first else 0
                writer.add(
                    texts.ids[start : int(ends[stop - 1])], texts.lengths[first:stop], texts.text_bytes[first:stop]
                )
        self._flush()

    def write_by_position(self, encoded: Iterable[tuple[Batch, EncodedTexts]], tokenizer: Tokenizer) -> str:
        """Writes the last tenth of all tokens as validation, and may cut a document. Returns a line for `note`."""
        documents = [pair for _, texts in encoded for pair in zip(texts.split(), texts.text_bytes, strict=True)]
        num_tokens = sum(len(ids) for ids, _ in documents)
        num_validation = num_tokens // POSITION_PARTS
        num_train_left = num_tokens - num_validation
        for ids, text_bytes in documents:
            head, tail = ids[:num_train_left], ids[num_train_left:]
            # The head starts with BOS and counts as a document; a tail after it has no BOS and counts as none.
            tail_bytes = text_bytes if not len(head) else count_tokens([tail], tokenizer).text_bytes
            if len(head):
                self._train.add(head, np.array([len(head)]), np.array([text_bytes - tail_bytes]))
            if len(tail):
                self._validation.add(tail, np.array([len(tail)]), np.array([tail_bytes]))
            num_train_left -= len(head)
        self._flush()
        return (
            f"only {len(documents)} document(s), too few to choose some for validation: "
            f"the last {num_validation:,} of {num_tokens:,} tokens are used for validation instead"
        )

    def _flush(self) -> None:
        self._train.flush()
        self._validation.flush()


def _runs(items: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of equal items."""
    cuts = [place for place in range(1, len(items)) if items[place] != items[place - 1]]
    return pairwise([0, *cuts, len(items)])


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
        manifest = storage.verify_changed(output, "shards")
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
        file_format = format_of_named(path.name)
        if file_format.compression != "none" or file_format.content in ("parquet", "zip"):
            return None
        size += path.stat().st_size
    return size


def _check_options(tokenizer: Tokenizer, num_workers: int | None, shard_tokens: int) -> None:
    if tokenizer.bos_id is None:
        raise InputError(f"{tokenizer.name} has no BOS token, which begins each document; use another tokenizer")
    if num_workers is not None and not 1 <= num_workers <= MOST_WORKERS:
        raise UsageError(f"num_workers is {num_workers}; it can be 1 to {MOST_WORKERS}", parameter="num_workers")
    if shard_tokens < 1:
        raise UsageError(f"shard_tokens is {shard_tokens}; at least 1 is needed", parameter="shard_tokens")
