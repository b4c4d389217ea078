"""Cuts encoded documents into shards: each split in the order of the corpus, a shard at each full size.

`writer` reads, splits and encodes the corpus; `journal` writes the files and lists finished shards.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tinyllm.corpus.documents import Document
from tinyllm.corpus.split import SplitRule
from tinyllm.shards.details import Counts, ShardEntry, SplitName
from tinyllm.shards.encoding import EncodedTexts, Lengths, Tokens
from tinyllm.shards.format import POSITION_PARTS, count_tokens
from tinyllm.shards.journal import Journal, shard_name, source_shard_name
from tinyllm.tokenizer.codec import Tokenizer


@dataclass(frozen=True)
class LabelledTexts:
    """Encoded documents, with the file and the split of each."""

    texts: EncodedTexts
    sources: Sequence[str]
    are_validation: npt.NDArray[np.bool_]

    def select(self, chosen: npt.NDArray[np.bool_]) -> "LabelledTexts":
        """The chosen documents alone."""
        texts, sources = self.texts, [self.sources[place] for place in np.flatnonzero(chosen).tolist()]
        ids = texts.ids[np.repeat(chosen, texts.lengths)]
        encoded = EncodedTexts(ids, texts.lengths[chosen], texts.text_bytes[chosen])
        return LabelledTexts(encoded, sources, self.are_validation[chosen])


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

    def skip_encoded(self, encoded: Iterable[LabelledTexts]) -> Iterator[LabelledTexts]:
        """Drops encoded documents as `skip_finished` drops documents."""
        finished = {True: self._journal.num_documents("validation"), False: self._journal.num_documents("train")}
        for labelled in encoded:
            is_left = np.ones(len(labelled.are_validation), dtype=bool)
            for is_validation, count in finished.items():
                dropped = np.flatnonzero(labelled.are_validation == is_validation)[:count]
                is_left[dropped] = False
                finished[is_validation] -= len(dropped)
            if is_left.any():
                yield labelled if is_left.all() else labelled.select(is_left)

    def write(self, rule: SplitRule, encoded: Iterable[LabelledTexts], tokenizer: Tokenizer) -> str | None:
        """Writes all documents by a rule of `corpus.split`; returns a line for `note`, or None."""
        if rule == "position":
            return self.write_by_position(encoded, tokenizer)
        if rule == "source":
            self.write_by_source(encoded)
        else:
            self.write_by_label(encoded)
        return None

    def write_by_label(self, encoded: Iterable[LabelledTexts]) -> None:
        """Writes each document to the split of its label."""
        for labelled in encoded:
            texts, are_validation = labelled.texts, labelled.are_validation
            for writer, selected in ((self._train, ~are_validation), (self._validation, are_validation)):
                ids = texts.ids[np.repeat(selected, texts.lengths)]
                writer.add(ids, texts.lengths[selected], texts.text_bytes[selected])
        self._flush()

    def write_by_source(self, encoded: Iterable[LabelledTexts]) -> None:
        """Writes each source as one shard of the split that its documents' labels name."""
        source = None
        for labelled in encoded:
            texts = labelled.texts
            ends = np.cumsum(texts.lengths)
            for first, stop in _runs(labelled.sources):
                writer = self._validation if labelled.are_validation[first] else self._train
                if labelled.sources[first] != source:
                    self._flush()
                    source = labelled.sources[first]
                    writer.name_next(source_shard_name(source, self._journal.entries))
                start = int(ends[first - 1]) if first else 0
                writer.add(
                    texts.ids[start : int(ends[stop - 1])], texts.lengths[first:stop], texts.text_bytes[first:stop]
                )
        self._flush()

    def write_by_position(self, encoded: Iterable[LabelledTexts], tokenizer: Tokenizer) -> str:
        """Writes the last tenth of all tokens as validation, and may cut a document. Returns a line for `note`."""
        all_texts = (labelled.texts for labelled in encoded)
        documents = [pair for texts in all_texts for pair in zip(texts.split(), texts.text_bytes, strict=True)]
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
