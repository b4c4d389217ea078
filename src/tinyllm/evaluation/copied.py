"""Finds the longest span of each text that also stands in the training shards: how much a model has memorized.

The shards are read once, in chunks, so memory does not depend on their size. Spans are compared by hashes (after Karp
and Rabin 1987), and a span counts only after its tokens were compared too. The hash of the tokens t_j ... t_k is

    (r(t_j) B^j + ... + r(t_k) B^k) / B^j   modulo 2^64, with B odd and r mixing bits,

so that prefix sums give the hashes of all spans of one length in a few NumPy operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tinyllm.shards.encoding import Tokens

CHUNK_TOKENS = 2**21
"""Tokens of a chunk, which needs about 60 bytes for each."""
SHORTEST_TOKENS = 8
"""Shorter spans are common to all texts of a kind and are not searched."""

_Hashes = npt.NDArray[np.uint64]
_Integers = npt.NDArray[np.int64]
_BASE = 0x9E3779B97F4A7C15
_FILTER_BITS = 18
"""High bits of a hash that the filter looks at before the exact search."""
_VERIFIED = 16
"""Places whose tokens are compared before a length is given up; equal hashes of different spans are very rare."""


@dataclass(frozen=True)
class Span:
    """A run of tokens of a text."""

    start: int
    """Index of its first token in the text."""
    length: int
    """Number of tokens; 0 if no span of at least `SHORTEST_TOKENS` tokens is in the shards."""


def find_longest_copies(
    texts: Sequence[Sequence[int]], shards: Sequence[Tokens], chunk_tokens: int = CHUNK_TOKENS
) -> list[Span]:
    """The longest span of each of `texts` that is also in one of `shards`; all are ids of one tokenizer.

    A second span of the same length is not looked for.
    """
    searches = [_Search(np.asarray(text, np.int64)) for text in texts]
    overlap = max((len(search.tokens) for search in searches), default=0)
    for shard in shards:
        for start in range(0, len(shard), chunk_tokens):
            chunk = np.asarray(shard[start : start + chunk_tokens + overlap]).astype(np.int64)
            _extend(searches, _Hashed(chunk))
    return [Span(search.start, search.length) for search in searches]


class _Hashed:
    """Tokens with the prefix sums of their hashes."""

    def __init__(self, tokens: _Integers) -> None:
        self.tokens = tokens
        self._sums = np.zeros(len(tokens) + 1, np.uint64)
        np.cumsum(_mixed(tokens) * _powers(_BASE, len(tokens)), out=self._sums[1:])

    def hashes(self, length: int, places: _Integers | None = None) -> _Hashes:
        """The hashes of the spans of `length` tokens at `places`, or at all places."""
        powers = _powers(pow(_BASE, -1, 2**64), len(self.tokens))
        if places is None:
            end = max(0, len(self.tokens) - length + 1)
            return (self._sums[length : length + end] - self._sums[:end]) * powers[:end]
        return (self._sums[places + length] - self._sums[places]) * powers[places]


class _Search(_Hashed):
    """A text, and the longest of its spans that has been found."""

    def __init__(self, tokens: _Integers) -> None:
        super().__init__(tokens)
        self.start = self.length = 0
        self.seeds = self.hashes(SHORTEST_TOKENS)


def _extend(searches: Sequence[_Search], chunk: _Hashed) -> None:
    """Lengthens the span of each search by what the chunk holds."""
    seeds = chunk.hashes(SHORTEST_TOKENS)
    known = np.concatenate([search.seeds for search in searches]) if searches else seeds[:0]
    places = np.flatnonzero(_are_in(seeds, known))
    seeds = seeds[places]
    for search in searches:
        _lengthen(search, chunk, places[_are_in(seeds, search.seeds)])


def _lengthen(search: _Search, chunk: _Hashed, places: _Integers) -> None:
    """Finds the longest span of one search at `places` of the chunk: first by doubled steps, then by bisection.

    The beginning of a span matches where the span does. So a longer span is searched at the places of the shorter one.
    """
    low, high = max(search.length, SHORTEST_TOKENS - 1), min(len(search.tokens), len(chunk.tokens))
    step = 1
    while low < high and len(places):
        length = min(low + step, high)
        inside = places[: np.searchsorted(places, len(chunk.tokens) - length, side="right")]
        spans = search.hashes(length)
        found = inside[_are_in(chunk.hashes(length, inside), spans)]
        start = _verified_start(search, spans, chunk, found, length)
        if start is None:
            high = length - 1
            step = max(1, (high - low + 1) // 2)
        else:
            search.start, search.length, places = start, length, found
            low, step = length, 2 * step


def _verified_start(search: _Search, spans: _Hashes, chunk: _Hashed, places: _Integers, length: int) -> int | None:
    """The start in the text of a span that stands, token by token, at one of `places` of the chunk."""
    for place, value in zip(places[:_VERIFIED], chunk.hashes(length, places[:_VERIFIED]), strict=True):
        for start in np.flatnonzero(spans == value):
            if np.array_equal(search.tokens[start : start + length], chunk.tokens[place : place + length]):
                return int(start)
    return None


def _are_in(hashes: _Hashes, known: _Hashes) -> npt.NDArray[np.bool_]:
    """Whether each of `hashes` is among `known`."""
    result = np.zeros(len(hashes), np.bool_)
    if not len(known):
        return result
    shift = np.uint64(64 - _FILTER_BITS)
    table = np.zeros(2**_FILTER_BITS, np.bool_)
    table[known >> shift] = True
    likely = np.flatnonzero(table[hashes >> shift])
    ranked = np.sort(known)
    ranks = np.minimum(np.searchsorted(ranked, hashes[likely]), len(ranked) - 1)
    result[likely] = ranked[ranks] == hashes[likely]
    return result


@lru_cache(maxsize=8)
def _powers(base: int, count: int) -> _Hashes:
    """`base` to the powers 0, 1, ... count - 1, modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mixed(tokens: _Integers) -> _Hashes:
    """A random-looking number for each token (the finalizer of SplitMix64, Steele et al. 2014)."""
    mixed = (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(_BASE)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: _Hashes = mixed ^ (mixed >> np.uint64(31))
    return result
