"""Where top-k and top-p end, found without sorting: how many numbers from the largest down, or how much in sum.

The end is found by halving: numbers have integer keys that sort as they do, and those in the upper half
of their range are counted (top-k) or weighed (top-p); the half where the end lies is halved again.
"""

import numpy as np

from tinyllm.generation import cpu_plan as at
from tinyllm.generation.cpu_kernels import compiled
from tinyllm.generation.cpu_memory import bits_of_float
from tinyllm.generation.cpu_vectors import keep_between

BLOCK = at.SAMPLING_BLOCK
LOWEST = np.finfo(np.float32).min
LOWEST_KEY, HIGHEST_KEY = -(1 << 31), (1 << 31) - 1
SIGN_BIT = 1 << 31


@compiled
def kth_largest(x, size, tops, num_blocks, k, pool):
    """The `k`-th largest of `size` numbers, of which `tops` are the largest of each of `num_blocks` blocks."""
    bound, count = LOWEST, 0
    if k <= num_blocks:
        # They are numbers of their own, so at least k numbers reach the k-th of them.
        for block in range(num_blocks):
            pool[block] = tops[block]
        select(pool, num_blocks, np.float64(k), False)
        bound = pool[0]
    for first in range(0, size, BLOCK):
        if tops[first // BLOCK] >= bound:
            count = keep(x, first, min(first + BLOCK, size), key_of(bound), HIGHEST_KEY, pool, count)
    select(pool, count, np.float64(k), False)
    return pool[0]


@compiled
def end_of_top_p(weights, size, sums, needed, low, pool):
    """The lightest weight of the smallest set with the sum `needed`; of its equals those too many are set to 0.

    No weight below `low` is in it.
    """
    count = 0
    for first in range(0, size, BLOCK):
        if sums[first // BLOCK] >= low:
            count = keep(weights, first, min(first + BLOCK, size), key_of(low), HIGHEST_KEY, pool, count)
    num_equal, above = select(pool, count, needed, True)
    last, num_wanted, i = pool[0], 1, size
    while num_wanted < num_equal and above + num_wanted * np.float64(last) < needed:
        num_wanted += 1
    while num_equal > num_wanted:
        i -= 1
        if sums[i // BLOCK] >= last and weights[i] == last:
            weights[i] = np.float32(0)
            num_equal -= 1
    return last


@compiled
def select(pool, count, needed, by_weight):
    """Where numbers from the largest down are `needed` many, or sum to as much: how many are equal to the last of them,
    and the sum before these. Only they stay in `pool`."""
    above = 0.0
    while True:
        low, high = np.int64(HIGHEST_KEY), np.int64(LOWEST_KEY)
        for i in range(count):
            low, high = min(low, key_of(pool[i])), max(high, key_of(pool[i]))
        if low >= high:
            return count, above
        middle, upper = low + (high - low) // 2, 0.0
        for i in range(count):
            upper += (pool[i] if by_weight else np.float32(1)) if key_of(pool[i]) > middle else np.float32(0)
        # Where rounding leaves all of them short, the last is the smallest.
        if above + upper >= needed:
            low = middle + 1
        else:
            above, high = above + upper, middle
        count = keep(pool, 0, count, low, high, pool, 0)


@compiled
def keep(x, first, last, low, high, pool, count):
    """Adds numbers with keys from `low` to `high` to the `count` in `pool`, which may be where they are: how many."""
    whole = first + (last - first) // at.LANES * at.LANES
    if whole > first:
        count += keep_between(x, first, whole - first, low, high, pool, count)
    for i in range(whole, last):
        pool[count] = x[i]
        count += 1 if low <= key_of(x[i]) <= high else 0
    return count


@compiled
def key_of(number):
    """An integer from -2^31 to 2^31 - 1 that sorts as its number does: see `keep_between`."""
    bits = bits_of_float(number)
    return SIGN_BIT - 1 - bits if bits >= SIGN_BIT else bits
