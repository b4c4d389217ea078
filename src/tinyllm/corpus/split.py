"""Splits documents into training and validation by a hash of their text.

The split does not depend on the order or number of files. Copies of a text fall on one side, and a growing corpus
keeps its split. Fewer than 20 documents are not split here; the caller splits their tokens by position.
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
    """A pseudo-random number in [0, 1), a pure function of the stripped text (blake2b)."""
    digest = blake2b(text.strip().encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_documents(
    documents: Iterable[Document], fraction: float = VALIDATION_FRACTION, source: str | None = None
) -> tuple[SplitRule, Iterator[tuple[Document, bool]]]:
    """The rule of the split, and an iterator of (document, whether it is for validation).

    "hash": documents with a key below `fraction` are for validation. If there is none, the document with the lowest
    key is, and it may be yielded late. At most 20 documents are in memory at a time.
    "position": fewer than 20 documents are all labelled False; the caller reserves their last tokens for validation.
    "source": all documents of `source`, if given, are for validation.
    Raises UsageError for a fraction outside (0, 0.5], InputError if no document is left to train on.
    """
    if not 0 < fraction <= 0.5:
        name = "validation_fraction"
        raise UsageError(f"{name} is {fraction}; it should be above 0 and at most 0.5", parameter=name)
    if source is not None:
        return "source", _require_training(_label_source(documents, source))
    remaining = iter(documents)
    first = list(islice(remaining, LEAST_DOCUMENTS))
    if len(first) < LEAST_DOCUMENTS:
        return "position", ((document, False) for document in first)
    return "hash", _require_training(_label(chain(first, remaining), fraction))


def _label(documents: Iterable[Document], fraction: float) -> Iterator[tuple[Document, bool]]:
    """Labels documents by hash, and holds the one with the lowest key, with its copies, until a lower key is read.

    It is for validation if no other document is. Once its key is below `fraction`, nothing is held.
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
                yield from ((earlier, False) for earlier in waiting)
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
            "most likely because they are copies of one text",
            hint="add others, or read them with `documents=file`",
        )
