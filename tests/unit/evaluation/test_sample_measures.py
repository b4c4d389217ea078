"""Measures of texts whose figures can be counted by hand, and of texts copied from shards."""

from itertools import islice
from pathlib import Path

import pytest

from tinyllm.corpus.storybook import write_stories
from tinyllm.evaluation.samples import distinct_share, find_copies, measure_samples, repeated_share, split_words
from tinyllm.shards.format import ShardSet


def test_words_are_found_in_any_language() -> None:
    assert split_words("Don't say “jump-rope”, Zoë: 床前明月光 2026!") == [
        *("don't", "say", "jump-rope", "zoë", "床", "前", "明", "月", "光", "2026")
    ]


def test_distinct_and_repeated_sequences_are_counted() -> None:
    words = ["a", "b", "a", "b", "a", "b"]
    assert distinct_share([words], 1) == pytest.approx(2 / 6)
    assert distinct_share([words], 2) == pytest.approx(2 / 5)
    assert distinct_share([words, ["c"]], 2) == pytest.approx(2 / 5)
    assert repeated_share(words, 4) == pytest.approx(1 / 3)
    assert repeated_share(["a", "b", "c"], 4) == 0
    assert distinct_share([], 1) == 0


def test_accepted_stories_are_a_share() -> None:
    stories = list(islice(write_stories(3, seed=3), 3))
    measures = measure_samples([*stories, "Once upon a time"])
    assert measures.accepted == 0.75
    assert measures.copies is None
    assert measures.num_texts == 4
    assert 0 < measures.distinct[1] < measures.distinct[2] < measures.distinct[3] <= 1


def test_a_text_of_the_shards_is_copied_whole(tiny_shards: Path) -> None:
    shards = ShardSet.open(tiny_shards)
    learned = shards.tokenizer.decode(shards.train[0][1:12].tolist())
    copies = find_copies([learned, "Zebras quack in the 7 moons of Saturn."], shards)
    assert copies.whole_texts == 1
    assert copies.longest_text == learned
    assert copies.longest_tokens == len(shards.tokenizer.encode(learned))
    assert 0.5 <= copies.mean_share < 0.8
    assert copies.mean_tokens >= copies.longest_tokens / 2
