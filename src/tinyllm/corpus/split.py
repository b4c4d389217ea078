"""Which documents are for validation: told by each document's text, not by where it stands.

A hash of the text decides, so that the split is the same whatever the order and number of files, copies of a text
fall on one side, and a corpus that grows keeps its split. Too few documents are left to be split by position.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain, islice
from typing import Literal

from tinyllm.corpus.documents import Document
from tinyllm.errors import InputError, UsageError

SplitRule = Literal["hash", "position", "source"]
VALIDATION_FRACTION = 0.01
LEAST_DOCUMENTS = 20


def split_key(text: str) -> float:
    """A number in [0, 1) that is as good as random, and always the same for the same text (blake2b)."""
    digest = blake2b(text.strip().encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_documents(
    documents: Iterable[Document], fraction: float = VALIDATION_FRACTION, source: str | None = None
) -> tuple[SplitRule, Iterator[tuple[Document, bool]]]:
    """The rule of the split, and each document with whether it is for validation.

    By "hash", documents with a key below `fraction` are; if there is none, the one with the lowest key is, and it may
    come later than it stood. Fewer than 20 documents are all labelled False under the rule "position": the caller
    holds the last part of their tokens back instead. At most 20 documents are in memory at a time.
    With `source`, all documents of that source are for validation, under the rule "source".
    Raises UsageError for a fraction that is not above 0 and at most 0.5, InputError if no document is left to train on.
    """
    if not 0 < fraction <= 0.5:
        raise UsageError(f"the validation fraction is {fraction}; it must be above 0 and at most 0.5")
    if source is not None:
        return "source", _require_training(_label_source(documents, source))
    remaining = iter(documents)
    first = list(islice(remaining, LEAST_DOCUMENTS))
    if len(first) < LEAST_DOCUMENTS:
        return "position", ((document, False) for document in first)
    return "hash", _require_training(_label(chain(first, remaining), fraction))


def _label(documents: Iterable[Document], fraction: float) -> Iterator[tuple[Document, bool]]:
    """Labels by hash. The document with the lowest key waits, with its copies, until a lower one comes or all are read.

    It is the one that must be for validation if no other is. Once it is below `fraction`, nothing else has to wait.
    """
    lowest = 1.0
    waiting: list[Document] = []
    for document in documents:
        key = split_key(document.text)
        if lowest < fraction:
            yield document, key < fraction
        elif key > lowest:
            yield document, False
        else:
            if key < lowest:
                yield from ((passed, False) for passed in waiting)
                lowest, waiting = key, []
            waiting.append(document)
    yield from ((document, True) for document in waiting)


def _label_source(documents: Iterable[Document], source: str) -> Iterator[tuple[Document, bool]]:
    found = False
    for document in documents:
        found = found or document.source == source
        yield document, document.source == source
    if not found:
        raise InputError(f"{source} has no text, so there is nothing for validation; leave the file out or fill it")


def _require_training(labelled: Iterable[tuple[Document, bool]]) -> Iterator[tuple[Document, bool]]:
    num_train = num_validation = 0
    for document, is_validation in labelled:
        num_validation += is_validation
        num_train += not is_validation
        yield document, is_validation
    if not num_train:
        raise InputError(
            f"the split leaves nothing to train on: all {num_validation} documents went to validation, "
            "most likely because they are copies of one text; add others, or read them with --documents file"
        )
