"""Splits documents into training and validation by a hash of their text.

The split does not depend on the order or number of files. Copies of a text fall on one side, and a growing corpus
keeps its split. Fewer than 20 documents are not split here; the caller splits their tokens by position.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain, islice
from typing import Generic, Literal, TypeVar

from tinyllm.corpus.documents import Document
from tinyllm.errors import InputError, UsageError

Item = TypeVar("Item")
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
    check_fraction(fraction)
    if source is not None:
        return "source", _require_training(_label_source(documents, source))
    remaining = iter(documents)
    first = list(islice(remaining, LEAST_DOCUMENTS))
    if len(first) < LEAST_DOCUMENTS:
        return "position", ((document, False) for document in first)
    return "hash", _require_training(_label(chain(first, remaining), fraction))


def check_fraction(fraction: float) -> None:
    """Raises UsageError unless `fraction` is in (0, 0.5]."""
    if not 0 < fraction <= 0.5:
        name = "validation_fraction"
        raise UsageError(f"{name} is {fraction}; it should be above 0 and at most 0.5", parameter=name)


class HashLabels(Generic[Item]):
    """Labels documents by their keys, and holds the ones with the lowest key, copies of one text, to the end.

    They are for validation if no other document is. A document is given as any item, so that the label of an encoded
    one needs no text.
    """

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self._lowest = 1.0
        self._waiting: list[Item] = []

    @property
    def hold_no_more(self) -> bool:
        """Whether a key below the fraction was seen: each later document is labelled by its own key alone."""
        return self._lowest < self._fraction

    def label(self, item: Item, key: float) -> Iterator[tuple[Item, bool]]:
        """The items whose labels are known after `item`, which may be an earlier one or none."""
        if self.hold_no_more:
            yield item, key < self._fraction
        elif key > self._lowest:
            yield item, False
        else:
            if key < self._lowest:
                yield from ((earlier, False) for earlier in self._waiting)
                self._lowest, self._waiting = key, []
            self._waiting.append(item)

    def rest(self) -> Iterator[tuple[Item, bool]]:
        """The items that were held to the end of the corpus."""
        return ((item, True) for item in self._waiting)


def _label(documents: Iterable[Document], fraction: float) -> Iterator[tuple[Document, bool]]:
    labels = HashLabels[Document](fraction)
    for document in documents:
        yield from labels.label(document, split_key(document.text))
    yield from labels.rest()


def _label_source(documents: Iterable[Document], source: str) -> Iterator[tuple[Document, bool]]:
    found = False
    for document in documents:
        found = found or document.source == source
        yield document, document.source == source
    if not found:
        raise no_validation(source)


def _require_training(labelled: Iterable[tuple[Document, bool]]) -> Iterator[tuple[Document, bool]]:
    num_train = num_validation = 0
    for document, is_validation in labelled:
        num_validation += is_validation
        num_train += not is_validation
        yield document, is_validation
    if not num_train:
        raise no_training(num_validation)


def no_validation(source: str) -> InputError:
    """The error for a validation source without documents."""
    return InputError(f"{source} has no text, so there is nothing for validation; leave the file out or fill it")


def no_training(num_validation: int) -> InputError:
    """The error for a split that labels all documents for validation."""
    return InputError(
        f"the split leaves nothing to train on: all {num_validation} documents went to validation, "
        "most likely because they are copies of one text",
        hint="add others, or read them with `documents=file`",
    )
