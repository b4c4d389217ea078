"""Where top-k and top-p end, found without sorting: how many numbers from the largest down, or how much in sum.

The end is found by halving: numbers have integer keys that sort as they do, and those in the upper half
of their range are counted (top-k) or weighed (top-p); the half where the end lies is halved again. For top-p the range
is first cut into some parts at once, so that halving begins with the few weights of one part.
"""

import numpy as np

from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.blocks import LANES, LOGIT_BLOCK
from tinyllm.kernels.decode.forward import compiled
from tinyllm.kernels.decode.memory import float_from_bits, key_of
from tinyllm.kernels.decode.vectors import add_sums_from_cuts, keep_between

LOWEST = np.finfo(np.float32).min
LOWEST_KEY, HIGHEST_KEY = -(1 << 31), (1 << 31) - 1


@compiled
def kth_largest(x, size, tops, num_blocks, k, pool):
    """The `k`-th largest of `size` numbers, of which `tops` are the largest of each of `num_blocks` blocks."""
    bound, count = LOWEST, 0
    if k <= num_blocks:
        # They are numbers of their own, so at least k numbers reach the k-th of them.
        for block in range(num_blocks):
            pool[block] = tops[block]
        select(pool, num_blocks, 0.0, np.float64(k), False)
        bound = pool[0]
    for first in range(0, size, LOGIT_BLOCK):
        if tops[first // LOGIT_BLOCK] >= bound:
            count = keep(x, first, min(first + LOGIT_BLOCK, size), key_of(bound), HIGHEST_KEY, pool, count)
    select(pool, count, 0.0, np.float64(k), False)
    return pool[0]


@compiled
def guess_of_top_p(heaviest, sums, num_blocks, total, needed, low):
    """A weight that the end of top-p is hardly below, and not far above: `low` where blocks do not tell.

    Blocks without any weight of at least the guess tell what light weights in a block sum to. What the others have
    beyond that are their heavy ones: when these are `needed` and a tenth of what is not, it is a guess.
    """
    guess, wanted = np.float32(1), needed + (total - needed) / 10
    while guess > low:
        above, num_heavy = 0.0, 0
        for block in range(num_blocks):
            is_heavy = heaviest[block] >= guess
            above += sums[block] if is_heavy else 0.0
            num_heavy += 1 if is_heavy else 0
        num_light = num_blocks - num_heavy
        if 8 * num_light < num_blocks:
            return low
        if above - num_heavy * (total - above) / num_light >= wanted:
            return guess
        guess *= np.float32(0.7)
    return low


@compiled
def end_of_top_p(weights, size, sums, needed, low, pool):
    """The lightest weight of the smallest set with the sum `needed`; of its equals those too many are set to 0.

    No weight below `low`, which is above 0, is in it, and the heaviest weight is 1. `sums` are no sums here, but not
    below the heaviest weight of each block, or 0 where all are below `low`; the `NUM_CUTS` after them are overwritten.
    """
    num_blocks, first, above, count = whole_blocks(size), np.int64(key_of(low)), 0.0, 0
    step = (key_of(np.float32(1)) - first) // (at.NUM_CUTS + 1) + 1
    part = part_with_end(weights, num_blocks, float_from_bits(first + step), first, step, needed, sums, num_blocks)
    while count == 0:  # where rounding leaves all of them short, that part may be an empty one; the last has the 1
        above = sums[num_blocks + part] if part < at.NUM_CUTS else 0.0
        low_key = first + part * step
        for block in range(num_blocks):
            if sums[block] >= float_from_bits(low_key):
                start = block * LOGIT_BLOCK
                count = keep(weights, start, min(start + LOGIT_BLOCK, size), low_key, low_key + step - 1, pool, count)
        part += 1
    num_equal, above = select(pool, count, above, needed, True)
    last, num_wanted, i = pool[0], 1, size
    while num_wanted < num_equal and above + num_wanted * np.float64(last) < needed:
        num_wanted += 1
    while num_equal > num_wanted and i > 0:
        i -= 1
        if sums[i // LOGIT_BLOCK] >= last and weights[i] == last:
            weights[i] = np.float32(0)
            num_equal -= 1
    return last


@compiled
def part_with_end(weights, num_blocks, low, first, step, needed, sums, cut_sums):
    """In which part the sum of weights, from the heaviest down, reaches `needed`: `step` keys each, `first` the least.

    Blocks with `sums` below `low` are passed over. Sums down to each part but the lightest go to `sums[cut_sums]` on.
    """
    for cut in range(at.NUM_CUTS):
        sums[cut_sums + cut] = 0.0
    for block in range(num_blocks):
        if sums[block] >= low:
            add_sums_from_cuts(weights, block * LOGIT_BLOCK, first, step, sums, cut_sums)
    part = at.NUM_CUTS
    while part > 0 and sums[cut_sums + part - 1] < needed:
        part -= 1
    return part


@compiled
def whole_blocks(size):
    """How many blocks `size` numbers fill, the last one perhaps in part."""
    return (size + LOGIT_BLOCK - 1) // LOGIT_BLOCK


@compiled
def select(pool, count, above, needed, by_weight):
    """Where numbers from the largest down are `needed` many, or sum to as much, with `above` before the first of them:
    how many are equal to the last of them, and the sum before these. Only they stay in `pool`."""
    while True:
        low, high = np.int32(HIGHEST_KEY), np.int32(LOWEST_KEY)
        for i in range(count):
            low, high = min(low, key_of(pool[i])), max(high, key_of(pool[i]))
        if low >= high:
            return count, above
        middle, upper = np.int32(low + (high - low) // 2), 0.0
        for i in range(count):
            upper += (pool[i] if by_weight else np.float32(1)) if key_of(pool[i]) > middle else np.float32(0)
        # Where rounding leaves all of them short, the last is the smallest.
        if above + upper >= needed:
            low = np.int32(middle + 1)
        else:
            above, high = above + upper, middle
        count = keep(pool, 0, count, low, high, pool, 0)


@compiled
def keep(x, first, last, low, high, pool, count):
    """Adds numbers with keys from `low` to `high` to the `count` in `pool`, which may be where they are: how many."""
    low, high = np.int32(low), np.int32(high)
    whole = first + (last - first) // LANES * LANES
    if whole > first:
        count += keep_between(x, first, whole - first, low, high, pool, count)
    for i in range(whole, last):
        pool[count] = x[i]
        count += 1 if low <= key_of(x[i]) <= high else 0
    return count
