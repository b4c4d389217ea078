"""The order in which an epoch visits its windows: a permutation of all windows, a function of (seed, epoch).

`feistel` computes each place by itself and stores nothing. It is the order of new runs. `philox permutation` shuffles a
table of 8 bytes a window. It is the order of runs whose checkpoints name no order, so that they go on as they began.

`feistel` is a generalised Feistel network (Black & Rogaway 2002, Ciphers with arbitrary finite domains, method 3; after
Luby & Rackoff 1988). For N windows let a = ceil(sqrt(N)) and b = ceil(N / a). A place is a pair (left, right) with
left < a and right < b, and two rounds are

    left  = (left  + hash(right + key_1)) mod a
    right = (right + hash(left  + key_2)) mod b

Each round can be undone, so the network permutes the a b >= N pairs. Pairs outside the N windows go through it again
until they are inside ("cycle walking"). There are fewer than a such pairs, so that is rare.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
_Numbers = npt.NDArray[np.uint64]
EpochOrder = Callable[[Indices, int, int, int], Indices]
"""The windows at some places of an epoch, given the places, the number of windows, the seed and the epoch."""

FEISTEL, PHILOX = "feistel", "philox permutation"
NUM_ROUNDS = 24
"""Few windows need many rounds: with 8, neighbours among 6 windows are visibly uneven, with 16 places barely."""


def feistel_order(places: Indices, num_windows: int, seed: int, epoch: int) -> Indices:
    """The windows that the Feistel network puts at `places`, each in [0, num_windows); int64 of the same shape."""
    keys = _round_keys(seed, epoch)
    width = math.isqrt(num_windows - 1) + 1
    height = -(-num_windows // width)
    windows = _network(places.astype(np.uint64), width, height, keys)
    while (outside := windows >= num_windows).any():
        windows[outside] = _network(windows[outside], width, height, keys)
    return windows.astype(np.int64)


def philox_order(places: Indices, num_windows: int, seed: int, epoch: int) -> Indices:
    """The windows at `places` of a shuffled table, which needs 8 bytes a window."""
    return _shuffled(seed, epoch, num_windows)[places]


ORDERS: dict[str, EpochOrder] = {FEISTEL: feistel_order, PHILOX: philox_order}
"""The orders by the name that a checkpoint has; an order never changes, because runs are resumed with it."""


def _network(pairs: _Numbers, width: int, height: int, keys: _Numbers) -> _Numbers:
    """All rounds; a pair (left, right) is the number right * width + left."""
    right, left = np.divmod(pairs, np.uint64(width))
    for first, second in keys.reshape(-1, 2):
        left = (left + _hash(right + first)) % np.uint64(width)
        right = (right + _hash(left + second)) % np.uint64(height)
    return right * np.uint64(width) + left


def _hash(numbers: _Numbers) -> _Numbers:
    """A random-looking number below 2^63 for each number (the finalizer of SplitMix64, Steele et al. 2014).

    The largest bit is dropped, so that adding a side of the network does not overflow.
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (numbers ^ (numbers >> np.uint64(31))) >> np.uint64(1)


@lru_cache(maxsize=4)
def _round_keys(seed: int, epoch: int) -> _Numbers:
    return np.random.SeedSequence([seed, epoch]).generate_state(NUM_ROUNDS, np.uint64).astype(np.uint64)


@lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, num_windows: int) -> Indices:
    """All windows, shuffled by a counter-based generator (Philox) with (seed, epoch) as its key.

    (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.)
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(num_windows)
