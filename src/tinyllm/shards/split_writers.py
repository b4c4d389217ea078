"""Cuts encoded documents into shards: each split in the order of the corpus, a shard at each full size.

`writer` reads, splits and encodes the corpus; `journal` writes the files and lists finished shards.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from tinyllm.corpus.documents import Document
from tinyllm.shards.details import Counts, ShardEntry, SplitName
from tinyllm.shards.encoding import Batch, EncodedTexts, Lengths, Tokens
from tinyllm.shards.format import POSITION_PARTS, count_tokens
from tinyllm.shards.journal import Journal, shard_name, source_shard_name
from tinyllm.tokenizer.codec import Tokenizer


class ShardWriter:
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


class SplitWriters:
    """Writes both splits, each in the order of the corpus."""

    def __init__(self, journal: Journal, dtype: str, shard_tokens: int | None) -> None:
        """With `shard_tokens` None, a shard ends where its source ends, at any size."""
        self._journal = journal
        shard_tokens = shard_tokens or sys.maxsize
        self._train = ShardWriter("train", journal, dtype, shard_tokens)
        self._validation = ShardWriter("validation", journal, dtype, shard_tokens)

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
