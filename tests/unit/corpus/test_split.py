"""Tests that the split depends only on each document's text and never leaves a side empty."""

import random
from collections.abc import Iterator

import pytest

from tinyllm.corpus.documents import Document
from tinyllm.corpus.split import LEAST_DOCUMENTS, VALIDATION_FRACTION, split_documents, split_key
from tinyllm.errors import InputError, UsageError


def make_documents(num_documents: int) -> list[Document]:
    return [Document(f"story number {number}", "a.txt") for number in range(num_documents)]


def label(documents: list[Document], fraction: float = VALIDATION_FRACTION) -> dict[str, bool]:
    rule, labelled = split_documents(documents, fraction)
    assert rule == "hash"
    pairs = [(document.text, is_validation) for document, is_validation in labelled]
    assert sorted(text for text, _ in pairs) == sorted(document.text for document in documents), "none lost or doubled"
    return dict(pairs)


def test_the_key_is_the_top_of_a_blake2b_digest() -> None:
    # printf 'Once upon a time' | b2sum -l 64
    assert split_key(" Once upon a time\n") == pytest.approx(0xE4B6F49F92512AA4 / 2**64, abs=2**-53)


def test_keys_are_spread_evenly() -> None:
    keys = [split_key(str(number)) for number in range(10_000)]
    assert min(keys) >= 0
    assert max(keys) < 1
    counts = [sum(tenth / 10 <= key < (tenth + 1) / 10 for key in keys) for tenth in range(10)]
    # The standard deviation of each count is 30.
    assert all(850 < count < 1150 for count in counts)


@pytest.mark.parametrize("num_documents", [20, 50, 3000])
def test_order_does_not_matter(num_documents: int) -> None:
    documents = make_documents(num_documents)
    labels = label(documents)
    for seed in range(3):
        random.Random(seed).shuffle(documents)
        assert label(documents) == labels


def test_documents_below_the_fraction_are_for_validation() -> None:
    labels = label(make_documents(3000))
    assert labels == {text: split_key(text) < 0.01 for text in labels}
    assert 15 < sum(labels.values()) < 45


@pytest.mark.parametrize("num_documents", range(LEAST_DOCUMENTS, 60))
def test_at_least_one_document_is_for_validation(num_documents: int) -> None:
    labels = label(make_documents(num_documents), fraction=1e-9)
    assert [text for text, is_validation in labels.items() if is_validation] == [min(labels, key=split_key)]


def test_copies_fall_on_one_side() -> None:
    documents = make_documents(30) * 2
    for fraction in (1e-9, 0.01, 0.3):
        _, labelled = split_documents(documents, fraction)
        sides: dict[str, set[bool]] = {}
        for document, is_validation in labelled:
            sides.setdefault(document.text, set()).add(is_validation)
        assert all(len(side) == 1 for side in sides.values())
        assert {True} in sides.values()


@pytest.mark.parametrize("num_documents", [1, 19])
def test_few_documents_are_left_for_a_split_by_position(num_documents: int) -> None:
    documents = make_documents(num_documents)
    rule, labelled = split_documents(documents)
    assert rule == "position"
    assert list(labelled) == [(document, False) for document in documents]


def test_at_most_20_documents_are_in_memory() -> None:
    num_made = 0

    def make() -> Iterator[Document]:
        nonlocal num_made
        for document in make_documents(5000):
            num_made += 1
            yield document

    _, labelled = split_documents(make())
    for num_seen, _ in enumerate(labelled, start=1):
        assert num_made - num_seen <= LEAST_DOCUMENTS


def test_a_corpus_of_copies_is_refused() -> None:
    _, labelled = split_documents(make_documents(1) * 25)
    with pytest.raises(InputError, match=r"nothing to train on: all 25 documents .* copies of one text"):
        list(labelled)


@pytest.mark.parametrize("fraction", [0, -0.1, 0.51, 1, float("nan")])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match=r"should be above 0 and at most 0\.5"):
        split_documents([], fraction)
