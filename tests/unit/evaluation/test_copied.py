"""The longest copied span equals the one that comparing all substrings finds."""

import numpy as np
import pytest

from tinyllm.evaluation.copied import SHORTEST_TOKENS, Span, find_longest_copies


def longest_by_comparison(text: list[int], shards: list[np.ndarray]) -> int:
    """The length that comparing every pair of places finds, or 0 below the shortest."""
    longest = 0
    for shard in shards:
        row = np.zeros(len(shard) + 1, np.int64)
        for token in text:
            row[1:] = np.where(shard == token, row[:-1] + 1, 0)
            longest = max(longest, int(row.max()))
    return longest if longest >= SHORTEST_TOKENS else 0


@pytest.mark.parametrize("chunk_tokens", [7, 64, 10_000])
@pytest.mark.parametrize("vocab_size", [2, 3, 50])
def test_spans_are_the_longest(vocab_size: int, chunk_tokens: int) -> None:
    draw = np.random.default_rng(vocab_size)
    shards = [draw.integers(0, vocab_size, size).astype(np.uint16) for size in (400, 3, 150)]
    texts = [draw.integers(0, vocab_size, size).tolist() for size in (0, 5, 40, 60)]
    texts += [[*texts[2], *shards[0][30:95].tolist(), *texts[3]], shards[2].tolist(), [0] * 30]
    spans = find_longest_copies(texts, shards, chunk_tokens)
    for text, span in zip(texts, spans, strict=True):
        assert span.length == longest_by_comparison(text, shards)
        copied = text[span.start : span.start + span.length]
        assert not span.length or any(
            np.array_equal(shard[place : place + span.length], copied)
            for shard in shards
            for place in range(len(shard))
        )


def test_a_whole_text_is_found_across_chunks() -> None:
    shard = np.arange(5_000, dtype=np.uint32)
    texts = [list(range(900, 1_300)), [7, *range(100, 110), 9], list(range(6_000, 6_050))]
    assert find_longest_copies(texts, [shard], 1_000) == [Span(0, 400), Span(1, 10), Span(0, 0)]


def test_nothing_is_copied_from_no_shards() -> None:
    assert find_longest_copies([[1] * 20], []) == [Span(0, 0)]
    assert find_longest_copies([], [np.arange(20, dtype=np.uint16)]) == []
