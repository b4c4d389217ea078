"""Lengths, frequencies and duplicates in a split of shards, within a bounded time and memory.

Every part has a share of the time. A part that does not end within it counts what it has read, and says so.

Shapes: N documents, V vocabulary.
"""

import time
from array import array
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.serving.studio.pieces import piece_fields
from tinyllm.serving.studio.shard_view import ShardView, SplitView

PART_SECONDS = 0.6
BLOCK_DOCUMENTS = 2**18
BLOCK_TOKENS = 2**20
HASHED_DOCUMENTS = 1_024
MOST_DOCUMENTS = 2_000_000
"""Documents whose lengths and hashes are kept: 8 bytes each."""
MOST_HASHED_TOKENS = 2**24
"""Tokens of one document that its hash covers."""
NUM_BINS, NUM_RANKS = 40, 300
MOST_GROUPS, SHOWN_INDEXES, SHOWN_CHARACTERS = 10, 5, 100

Counts = npt.NDArray[np.int64]


def statistics(view: ShardView, split: SplitView, seconds: float = PART_SECONDS) -> dict[str, Any]:
    """The statistics of a split; each of three parts takes `seconds` at most."""
    lengths, all_lengths = _lengths(split, seconds)
    counts, all_counts = _frequencies(view, split, seconds)
    hashes, all_hashes = _hashes(split, seconds)
    return {
        "lengths": _histogram(lengths),
        "frequencies": _ranks(view, counts),
        "unused": int(np.count_nonzero(counts == 0)),
        "duplicates": _duplicates(view, split, hashes),
        "sampled": not (all_lengths and all_counts and all_hashes),
    }


def _lengths(split: SplitView, seconds: float) -> tuple[Counts, bool]:
    """The lengths of the documents (N,) in tokens, and whether these are all."""
    end = time.monotonic() + seconds
    found = [np.zeros(0, np.int64)]
    number, stop = 0, min(split.num_documents, MOST_DOCUMENTS)
    while number < stop and time.monotonic() < end:
        for _, file, first, last in split.parts(number, min(number + BLOCK_DOCUMENTS, stop)):
            found.append(np.diff(file.bounds(first, last)))
            number += last - first
    return np.concatenate(found), number == split.num_documents


def _frequencies(view: ShardView, split: SplitView, seconds: float) -> tuple[Counts, bool]:
    """The occurrences of each id (V,), and whether all tokens are counted; else evenly spaced blocks are."""
    end = time.monotonic() + seconds
    size = view.tokenizer.vocab_size
    counts = np.zeros(size, np.int64)
    blocks = [(file, start) for file in split.files for start in range(0, file.num_tokens, BLOCK_TOKENS)]
    order = _spread(len(blocks))
    for done, index in enumerate(order):
        if time.monotonic() > end:
            return counts, done == len(blocks)
        file, start = blocks[index]
        ids = file.ids(start, min(start + BLOCK_TOKENS, file.num_tokens))
        counts += np.bincount(ids, minlength=size)[:size]
    return counts, True


def _hashes(split: SplitView, seconds: float) -> tuple[Counts, bool]:
    """A hash of the ids of each document (N,), and whether these are all."""
    end = time.monotonic() + seconds
    hashes = array("q")
    number, stop = 0, min(split.num_documents, MOST_DOCUMENTS)
    while number < stop and time.monotonic() < end:
        for _, file, first, last in split.parts(number, min(number + HASHED_DOCUMENTS, stop)):
            bounds = file.bounds(first, last).tolist()
            if bounds[-1] - bounds[0] <= MOST_HASHED_TOKENS:
                content = memoryview(file.ids(bounds[0], bounds[-1]).tobytes())
                width = len(content) // max(bounds[-1] - bounds[0], 1)
                places = [(bound - bounds[0]) * width for bound in bounds]
                pairs = pairwise(places)
                hashes.extend([hash(content[begin:after]) for begin, after in pairs])
            else:
                for begin, after in pairwise(bounds):
                    hashes.append(hash(file.ids(begin, min(after, begin + MOST_HASHED_TOKENS)).tobytes()))
            number += last - first
    return np.array(hashes, np.int64), number == split.num_documents


def _histogram(lengths: Counts) -> dict[str, list[int]]:
    """Edges and counts of at most `NUM_BINS` intervals; an interval has its left edge.

    Intervals are equally wide, the last one aside. If lengths differ much, they are equally wide on a logarithmic axis.
    """
    if not len(lengths):
        return {"edges": [], "counts": []}
    low, high = max(int(lengths.min()), 1), int(lengths.max()) + 1
    if high > 20 * low:
        edges = np.unique(np.round(np.geomspace(low, high, NUM_BINS + 1)).astype(np.int64))
    else:
        width = -(-max(high - low, 1) // NUM_BINS)
        edges = np.append(np.arange(low, high, width), high)
    counts, _ = np.histogram(np.maximum(lengths, low), edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _ranks(view: ShardView, counts: Counts) -> dict[str, list[Any]]:
    """The most frequent ids by rank, 1 first, at most `NUM_RANKS` of them, evenly spaced by the logarithm of rank."""
    order = np.argsort(-counts, kind="stable")[: int(np.count_nonzero(counts))]
    if not len(order):
        return {"rank": [], "count": [], "piece": []}
    ranks = np.unique(np.round(np.geomspace(1, len(order), NUM_RANKS)).astype(np.int64))
    ids = order[ranks - 1].tolist()
    return {
        "rank": ranks.tolist(),
        "count": counts[ids].tolist(),
        "piece": [piece_fields(view.tokenizer, id)["piece"] for id in ids],
    }


def _duplicates(view: ShardView, split: SplitView, hashes: Counts) -> dict[str, Any]:
    """The number of documents that repeat an earlier one, and the groups of equal documents with most members."""
    values, counts = np.unique(hashes, return_counts=True)
    groups = []
    for index in np.argsort(-counts, kind="stable")[:MOST_GROUPS].tolist():
        if counts[index] < 2:
            break
        members = np.flatnonzero(hashes == values[index])[:SHOWN_INDEXES].tolist()
        _, _, ids = next(split.documents(members[0], members[0] + 1, SHOWN_CHARACTERS))
        known = [id for id in ids.tolist() if id < view.tokenizer.vocab_size]
        text = view.tokenizer.decode(known)[:SHOWN_CHARACTERS]
        groups.append({"count": int(counts[index]), "indexes": members, "text": text})
    return {"documents": int((counts - 1).sum()), "groups": groups}


def _spread(count: int) -> list[int]:
    """The numbers below `count` in an order whose every beginning is spread evenly: bit-reversed."""
    bits = max(count - 1, 0).bit_length()
    reversed_bits = (int(f"{number:0{max(bits, 1)}b}"[::-1], 2) for number in range(2**bits))
    return [number for number in reversed_bits if number < count]
