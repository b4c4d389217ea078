"""From text files to a shard directory: `prepare`.

This process reads and splits, all encode, and shards are cut at document boundaries in the order of the corpus.
So the bytes depend on the sources, the tokenizer and the options alone: not on the number of processes, and not on
interruptions, after which finished shards are kept. Formats of text are `corpus`' matter.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from tinyllm.runtime import num_available_cores
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
from tinyllm.tokenizer.codec import MODEL_NAME, Tokenizer

BATCH_CHARACTERS = 2**20
PROCESS_BYTES = 2**21
"""Text that is worth a process of its own: to start one takes as long as to encode some of these."""
MOST_WORKERS = 1024
"""Each is a process with its own memory; a million of them would stop the machine."""
SHARD_TOKENS = 2**24


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the bytes of a shard directory."""

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
        # Left out where it decides nothing, so that shards made before it existed are still up to date.
        facts = {name: value for name, value in vars(self).items() if name != "validation_source" or value is not None}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Progress:
    """How far `prepare` is; given to its `report` after each batch."""

    documents: int
    tokens: int
    text_bytes: int
    kept_bytes: int
    """Part of `text_bytes` that an earlier, interrupted run has done."""
    source_bytes: int | None
    """Size of the sources, to compare `text_bytes` with; None where they are compressed."""


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
    report: Callable[[Progress], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> ShardSet:
    """Encodes the documents of `inputs` and commits `output`; a second run after an interruption goes on.

    `num_workers` None is one process a core. If `output` was made from the same things, it is left as it is.
    With `validation_source`, the documents of that source (a `Document.source`) are for validation, and each source
    becomes one shard with its name, whatever its size: the layout of llama2.c.
    Raises InputError naming the file that cannot be used, ArtifactError where `output` cannot be written or is there
    already and `overwrite` is not given.
    """
    _check_options(tokenizer, num_workers, shard_tokens)
    sources = list_sources(inputs)
    recipe = Recipe(
        fingerprint_of(sources),
        hashlib.sha256(tokenizer.model_proto).hexdigest(),
        documents,
        text_key,
        validation_fraction,
        append_eos,
        shard_tokens,
        validation_source,
    )
    if _is_made(output, recipe):
        storage.remove_dead_drafts_of(output)
        note(f"{output} is up to date: made from the same files, tokenizer and options")
        return ShardSet.open(output)
    storage.check_replaceable(output, "shards", overwrite=overwrite)
    storage.check_writable(output)
    read = read_documents(inputs, documents=documents, text_key=text_key, note=note)
    rule, labelled = split_documents(read, validation_fraction, validation_source)
    with storage.commit_directory(output, "shards", resumable=True, with_stamps=True) as draft:
        # Where the split falls by position is known at the end, so then there is nothing to go on from.
        journal = Journal(draft.path, recipe.fingerprint, keep=rule != "position", note=note)
        draft.temporary_names.add(JOURNAL_NAME)
        writers = _SplitWriters(journal, dtype_for(tokenizer.vocab_size), None if rule == "source" else shard_tokens)
        batches = _make_batches(writers.skip_finished(labelled))
        processes = _fitting(num_workers, sources)
        try:
            with closing(journal), closing(encode_in_order(batches, tokenizer, append_eos, processes)) as encoded:
                observed = _observe(encoded, report, journal.counts, _plain_size(sources))
                if rule == "hash":
                    writers.write_by_label(observed)
                elif rule == "source":
                    writers.write_by_source(observed)
                else:
                    note(writers.write_by_position(observed, tokenizer))
        finally:
            draft.keep = rule != "position" and bool(journal.entries)
        draft.write(MODEL_NAME, tokenizer.model_proto)
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
    """SHA-256 over names and contents of files, in their order. Raises InputError for one that cannot be read."""
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
    """Gathers the documents of one split, and writes them as a shard whenever one is full."""

    def __init__(self, split: SplitName, journal: Journal, dtype: str, shard_tokens: int) -> None:
        self._split: SplitName = split
        self._journal = journal
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shard_tokens = shard_tokens
        self._tokens: list[Tokens] = []
        self._lengths: list[Lengths] = []
        self._num_tokens, self._num_bytes = 0, 0
        self._name: str | None = None

    def call(self, name: str) -> None:
        """Gives the next shard a name of its own instead of a number."""
        self._name = name

    def add(self, tokens: Tokens, lengths: Lengths, text_bytes: Lengths) -> None:
        """Takes documents; a shard holds at least one, and goes over its size for that alone."""
        ends = np.cumsum(lengths)
        first, first_token = 0, 0
        while first < len(lengths):
            room = first_token + self._shard_tokens - self._num_tokens
            past = max(int(np.searchsorted(ends, room, side="right")), first if self._lengths else first + 1)
            if past > first:
                past_token = int(ends[past - 1])
                # A copy: a view would keep all ids that it is a part of.
                self._tokens.append(tokens[first_token:past_token].astype(self._dtype))
                self._lengths.append(lengths[first:past])
                self._num_tokens += past_token - first_token
                self._num_bytes += int(text_bytes[first:past].sum())
                first, first_token = past, past_token
            if first < len(lengths):
                self.flush()

    def flush(self) -> None:
        """Writes what is gathered as one shard."""
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
    """The two splits on their way to disk, each in the order of the corpus."""

    def __init__(self, journal: Journal, dtype: str, shard_tokens: int | None) -> None:
        """`shard_tokens` None: a shard is cut where its source ends, whatever its size."""
        self._journal = journal
        shard_tokens = shard_tokens or sys.maxsize
        self._train = _ShardWriter("train", journal, dtype, shard_tokens)
        self._validation = _ShardWriter("validation", journal, dtype, shard_tokens)

    def skip_finished(self, labelled: Iterable[tuple[Document, bool]]) -> Iterator[tuple[Document, bool]]:
        """Leaves out the documents that finished shards of an earlier run hold: the first ones of each split."""
        finished = {True: self._journal.num_documents("validation"), False: self._journal.num_documents("train")}
        for document, is_validation in labelled:
            if finished[is_validation]:
                finished[is_validation] -= 1
            else:
                yield document, is_validation

    def write_by_label(self, encoded: Iterable[tuple[Batch, EncodedTexts]]) -> None:
        """Each document goes where its label says."""
        for batch, texts in encoded:
            are_validation = np.array(batch.are_validation)
            for writer, chosen in ((self._train, ~are_validation), (self._validation, are_validation)):
                ids = texts.ids[np.repeat(chosen, texts.lengths)]
                writer.add(ids, texts.lengths[chosen], texts.text_bytes[chosen])
        self._flush()

    def write_by_source(self, encoded: Iterable[tuple[Batch, EncodedTexts]]) -> None:
        """Each source becomes one shard, on the side that its documents' labels say."""
        source = None
        for batch, texts in encoded:
            ends = np.cumsum(texts.lengths)
            for first, past in _runs([document.source for document in batch.documents]):
                writer = self._validation if batch.are_validation[first] else self._train
                if batch.documents[first].source != source:
                    self._flush()
                    source = batch.documents[first].source
                    writer.call(source_shard_name(source, self._journal.entries))
                start = int(ends[first - 1]) if first else 0
                writer.add(
                    texts.ids[start : int(ends[past - 1])], texts.lengths[first:past], texts.text_bytes[first:past]
                )
        self._flush()

    def write_by_position(self, encoded: Iterable[tuple[Batch, EncodedTexts]], tokenizer: Tokenizer) -> str:
        """The last tenth of all tokens goes to validation, cut inside a document. Gives a line that says so."""
        documents = [pair for _, texts in encoded for pair in zip(texts.split(), texts.text_bytes, strict=True)]
        num_tokens = sum(len(ids) for ids, _ in documents)
        num_validation = num_tokens // POSITION_PARTS
        room = num_tokens - num_validation
        for ids, text_bytes in documents:
            head, tail = ids[:room], ids[room:]
            # A head holds BOS and so counts as a document; a tail that follows one is plain tokens.
            tail_bytes = text_bytes if not len(head) else count_tokens([tail], tokenizer).text_bytes
            if len(head):
                self._train.add(head, np.array([len(head)]), np.array([text_bytes - tail_bytes]))
            if len(tail):
                self._validation.add(tail, np.array([len(tail)]), np.array([tail_bytes]))
            room -= len(head)
        self._flush()
        return (
            f"only {len(documents)} document(s), too few to choose some for validation: "
            f"the last {num_validation:,} of {num_tokens:,} tokens are held back instead"
        )

    def _flush(self) -> None:
        self._train.flush()
        self._validation.flush()


def _runs(items: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Begin and end of each stretch of equal items."""
    cuts = [place for place in range(1, len(items)) if items[place] != items[place - 1]]
    return pairwise([0, *cuts, len(items)])


def _make_batches(labelled: Iterable[tuple[Document, bool]]) -> Iterator[Batch]:
    """Batches of about BATCH_CHARACTERS of text, or of one longer document."""
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


def _observe(
    encoded: Iterable[tuple[Batch, EncodedTexts]],
    report: Callable[[Progress], None],
    finished: Counts,
    source_bytes: int | None,
) -> Iterator[tuple[Batch, EncodedTexts]]:
    """Passes batches on, and reports the sums after each, with what is `finished` already."""
    documents, tokens, text_bytes = finished.documents, finished.tokens, finished.text_bytes
    for batch, texts in encoded:
        yield batch, texts
        documents += len(texts.lengths)
        tokens += len(texts.ids)
        text_bytes += int(texts.text_bytes.sum())
        report(Progress(documents, tokens, text_bytes, finished.text_bytes, source_bytes))


def _is_made(output: Path, recipe: Recipe) -> bool:
    """Whether `output` is a whole shard directory made by this recipe."""
    try:
        manifest = storage.verify_changed(output, "shards")
    except (ArtifactError, InputError):
        return False  # Not there, or not whole: `check_replaceable` says which.
    return manifest.details.get("recipe_fingerprint") == recipe.fingerprint


def _fitting(num_workers: int | None, sources: Sequence[Path]) -> int:
    """As many processes as asked for (None: one a core), but not more than the text is worth."""
    if num_workers is None:
        num_workers = num_available_cores()
    plain = _plain_size(sources)
    return num_workers if plain is None else max(1, min(num_workers, plain // PROCESS_BYTES))


def _plain_size(sources: Iterable[Path]) -> int | None:
    """Bytes of all sources together; None if one is compressed, so that its size says little of its text."""
    size = 0
    for path in sources:
        file_format = format_of_named(path.name)
        if file_format.compression != "none" or file_format.content in ("parquet", "zip"):
            return None
        size += path.stat().st_size
    return size


def _check_options(tokenizer: Tokenizer, num_workers: int | None, shard_tokens: int) -> None:
    if tokenizer.bos_id is None:
        raise InputError(f"{tokenizer.name} has no BOS token, which must begin each document; use another tokenizer")
    if num_workers is not None and not 1 <= num_workers <= MOST_WORKERS:
        raise UsageError(f"the number of workers is {num_workers}; it must be 1 to {MOST_WORKERS}")
    if shard_tokens < 1:
        raise UsageError(f"a shard of {shard_tokens} tokens is not possible; give at least 1")
