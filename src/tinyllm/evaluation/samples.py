"""Measures the texts that a model writes: grammar, variety, repetition, and what it copied from its training shards.

A word is a run of letters, digits, apostrophes and hyphens, or one Chinese, Japanese or Korean character, in small
letters. So variety does not depend on a model's tokenizer.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tinyllm.corpus.storybook import is_story
from tinyllm.evaluation.copied import find_longest_copies
from tinyllm.shards.format import ShardSet

REPEATED_WORDS = 4
"""Length of the word sequences whose repetition is counted."""
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+(?:['’-]\w+)*"
)


@dataclass(frozen=True)
class Copies:
    """Spans of sampled texts that also stand in the training shards, in tokens of the shards."""

    longest_tokens: int
    mean_tokens: float
    """Mean over the texts of the longest span of each."""
    mean_share: float
    """Mean over the texts of the share of their tokens in that span: 1 if every text is copied whole."""
    whole_texts: int
    """Texts that stand in the shards from beginning to end."""
    longest_text: str
    """The longest span."""


@dataclass(frozen=True)
class SampleMeasures:
    """Figures of some texts."""

    num_texts: int
    mean_words: float
    accepted: float
    """Share of the texts that the storybook's grammar accepts to the last letter."""
    distinct: dict[int, float]
    """Distinct sequences of 1, 2 and 3 words in all texts, divided by all of them (Li et al. 2016)."""
    repeated: float
    """Share of sequences of `REPEATED_WORDS` words that occurred before in the same text (Welleck et al. 2020)."""
    copies: Copies | None
    """None without training shards."""


def measure_samples(texts: Sequence[str], shards: ShardSet | None = None) -> SampleMeasures:
    """The measures of `texts`, of which there is at least one; `shards` have the training text to compare with."""
    words = [split_words(text) for text in texts]
    return SampleMeasures(
        num_texts=len(texts),
        mean_words=fmean(map(len, words)),
        accepted=fmean(map(is_story, texts)),
        distinct={length: distinct_share(words, length) for length in (1, 2, 3)},
        repeated=fmean(repeated_share(text, REPEATED_WORDS) for text in words),
        copies=None if shards is None else find_copies(texts, shards),
    )


def split_words(text: str) -> list[str]:
    """The words of `text` in small letters."""
    return [found[0].lower() for found in _WORD.finditer(text)]


def distinct_share(texts: Iterable[Sequence[str]], length: int) -> float:
    """The number of distinct sequences of `length` words, divided by the number of all; 0 if there are none."""
    sequences = [sequence for words in texts for sequence in _sequences(words, length)]
    return len(set(sequences)) / max(1, len(sequences))


def repeated_share(words: Sequence[str], length: int) -> float:
    """The share of sequences of `length` words that occurred before; 0 if there are none."""
    sequences = _sequences(words, length)
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def find_copies(texts: Sequence[str], shards: ShardSet) -> Copies:
    """The longest spans of `texts` that also stand in the training part of `shards`."""
    ids = [shards.tokenizer.encode(text) for text in texts]
    spans = find_longest_copies(ids, shards.train)
    longest = max(range(len(ids)), key=lambda number: spans[number].length)
    span = spans[longest]
    return Copies(
        longest_tokens=span.length,
        mean_tokens=fmean(span.length for span in spans),
        mean_share=fmean(span.length / max(1, len(text)) for span, text in zip(spans, ids, strict=True)),
        whole_texts=sum(0 < span.length == len(text) for span, text in zip(spans, ids, strict=True)),
        longest_text=shards.tokenizer.decode(ids[longest][span.start : span.start + span.length]),
    )


def _sequences(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
