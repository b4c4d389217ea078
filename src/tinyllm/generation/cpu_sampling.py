"""Sampling in the compiled program: what `sampling` defines, one row of logits at a time, and nothing is sorted.

Between two tokens the weights of a model go through the caches, and what Python and NumPy need is no longer there:
a choice costs less than half when it is made here. Logits come in blocks; those that hold no survivor are passed over.

A filter is a threshold, found by radix selection (Alabi et al. 2012): numbers have integer keys that sort as they do,
and are counted (top-k) or weighed (top-p) in buckets of keys, from the largest down; those in the bucket where the end
lies go into buckets again.
"""

import numpy as np
from numba import njit

from tinyllm.generation import cpu_plan as at
from tinyllm.generation.cpu_kernels import INNER, exponential
from tinyllm.generation.cpu_memory import (
    bits_of_float,
    bytes_,
    doubles,
    float_from_bits,
    floats,
    integers,
    larger,
)
from tinyllm.generation.cpu_vectors import keep_between

BLOCK = at.SAMPLING_BLOCK
LOWEST, LARGEST = np.finfo(np.float32).min, np.finfo(np.float32).max
LOWEST_KEY, HIGHEST_KEY = -(1 << 31), (1 << 31) - 1
SIGN_BIT, INFINITY_BITS = 1 << 31, 0x7F800000
UNDERFLOW = np.float32(-87)
"""Powers of e below this are 0."""
COLUMNS_PER_K = 4
LOG_2 = 0.6931471805599453


@njit(**INNER)
def choose(p, row, chunk):
    """Draws the next token of one text, with its log-probability; marks the plan where logits are not finite."""
    size, settings = p[at.VOCAB_SIZE], doubles(p[at.SETTINGS])
    raw, tops = floats(p[at.SAMPLED_LOGITS] + 4 * row * size), doubles(sums_address(p, chunk, at.BLOCK_TOPS))
    if not are_finite(raw, size):
        p[at.NOT_FINITE] = 1
        return
    logits, penalty, total = raw, np.float32(settings[at.REPETITION_PENALTY]), 0.0
    if penalty != 1:
        logits = floats(numbers_address(p, chunk, at.PENALIZED))
        penalize(raw, bytes_(p[at.SEEN] + row * size), size, penalty, logits)
    top = find_tops(logits, size, tops)
    if settings[at.TEMPERATURE] == 0:
        token = find(logits, tops, top)
    else:
        token, total = draw(p, chunk, logits, top, doubles(p[at.UNIFORMS])[row])
    if penalty != 1:
        top = largest(raw, size)
    if penalty != 1 or total == 0:
        total = sum_of_powers(raw, size, top)
    integers(p[at.CHOSEN])[row] = token
    doubles(p[at.LOG_PROBABILITIES])[row] = raw[token] - top - logarithm(total)


@njit(**INNER)
def draw(p, chunk, logits, top, uniform):
    """A token by the inverse of the cumulative distribution; and the sum of e^(logit - top) if it came up, else 0.

    Weights e^((logit - top) / temperature) stand for probabilities.
    """
    size, settings = p[at.VOCAB_SIZE], doubles(p[at.SETTINGS])
    tops, sums = doubles(sums_address(p, chunk, at.BLOCK_TOPS)), doubles(sums_address(p, chunk, at.BLOCK_SUMS))
    buckets = doubles(sums_address(p, chunk, at.BUCKETS))
    weights, pool = floats(numbers_address(p, chunk, at.WEIGHTS_LEFT)), floats(numbers_address(p, chunk, at.POOL))
    scale = np.float32(1 / max(settings[at.TEMPERATURE], 1e-30))
    cutoff, least, part = LOWEST, np.float32(settings[at.MIN_P]), settings[at.TOP_P]
    if 0 < settings[at.TOP_K] < size:
        cutoff = kth_largest(logits, size, np.int64(settings[at.TOP_K]), pool, buckets)
    # Only top-p reads weights again; else those of a block go where those of the block before it were.
    stride, at_once = (BLOCK, np.float32(0)) if part < 1 else (0, least)
    total = 0.0
    for first in range(0, size, BLOCK):
        block = first // BLOCK
        sums[block] = 0.0
        if tops[block] >= cutoff and exponential((np.float32(tops[block]) - top) * scale) >= at_once:
            last = min(size, first + BLOCK)
            sums[block] = weigh(logits, first, last, top, scale, cutoff, at_once, weights, block * stride)
        total += sums[block]
    left = total
    if part < 1:
        end = end_of_top_p(weights, size, sums, total, part, pool, buckets)
        left = drop_lighter(weights, size, sums, larger(end, least))
    block, rest = find_block(sums, (size + BLOCK - 1) // BLOCK, uniform * left)
    first, last = block * BLOCK, min(size, (block + 1) * BLOCK)
    if stride == 0:
        weigh(logits, first, last, top, scale, cutoff, at_once, weights, 0)
    token = first + find_inside(weights, block * stride, last - first, rest)
    is_whole = scale == 1 and cutoff == LOWEST and at_once == 0
    return token, total if is_whole else 0.0


@njit(**INNER)
def find_block(sums, num_blocks, target):
    """The first block with which the sum exceeds `target`, and what of that is left for it."""
    block = 0
    while block < num_blocks - 1 and sums[block] <= target:
        target -= sums[block]
        block += 1
    while block > 0 and sums[block] == 0:
        # Rounding has led past the last block that has any weight.
        block -= 1
        target += sums[block]
    return block, target


@njit(**INNER)
def find_inside(weights, start, count, target):
    """The first of `count` places with which the sum of weights exceeds `target`; else the last that has any."""
    chosen, total = 0, 0.0
    for i in range(count):
        weight = weights[start + i]
        if weight > 0 and total <= target:
            chosen = i
        total += weight
    return chosen


@njit(**INNER)
def numbers_address(p, chunk, which):
    """Where a chunk works on float32: weights, a pool to select from, or penalized logits, for each token."""
    return p[at.SAMPLING_NUMBERS] + 4 * (chunk * at.NUM_SAMPLING_NUMBERS + which) * p[at.SAMPLING_COLUMNS]


@njit(**INNER)
def sums_address(p, chunk, which):
    """Where a chunk works on float64: the largest logit of each block, the sum of its weights, or buckets."""
    num_blocks = p[at.SAMPLING_COLUMNS] // BLOCK
    return p[at.SAMPLING_SUMS] + 8 * (chunk * (2 * num_blocks + at.NUM_BUCKETS) + which * num_blocks)


@njit(**INNER)
def are_finite(x, size):
    """Whether no number is a NaN or infinite, told from its bits: fast arithmetic takes every number for finite."""
    most = np.int64(0)
    for i in range(size):
        most = max(most, bits_of_float(x[i]) & (SIGN_BIT - 1))
    return most < INFINITY_BITS


@njit(**INNER)
def penalize(raw, seen, size, penalty, result):
    """Divides positive and multiplies negative logits of tokens that occurred."""
    for i in range(size):
        x = raw[i]
        less = x / penalty if x > 0 else x * penalty
        result[i] = max(LOWEST, min(less, LARGEST)) if seen[i] != 0 else x


@njit(**INNER)
def find_tops(x, size, tops):
    """The largest number of each block, and of all."""
    highest = LOWEST
    for first in range(0, size, BLOCK):
        top = LOWEST
        for i in range(first, min(first + BLOCK, size)):
            top = larger(top, x[i])
        tops[first // BLOCK] = top
        highest = larger(highest, top)
    return highest


@njit(**INNER)
def find(x, tops, wanted):
    """The first place of the largest number."""
    block = 0
    while tops[block] != wanted:
        block += 1
    i = block * BLOCK
    while x[i] != wanted:
        i += 1
    return i


@njit(**INNER)
def largest(x, size):
    """The largest of some numbers."""
    top = LOWEST
    for i in range(size):
        top = larger(top, x[i])
    return top


@njit(**INNER)
def sum_of_powers(x, size, top):
    """The sum of e^(x - top)."""
    total = 0.0
    for first in range(0, size, BLOCK):
        part = np.float32(0)
        for i in range(first, min(first + BLOCK, size)):
            part += exponential(x[i] - top)
        total += part
    return total


@njit(**INNER)
def logarithm(x):
    """The natural logarithm of x >= 1: that of its power of two, and the series of the inverse hyperbolic tangent."""
    power = (bits_of_float(np.float32(x)) >> 23) - 127
    rest = x * np.float64(float_from_bits((127 - power) << 23))
    term = (rest - 1) / (rest + 1)
    square, total = term * term, 0.0
    for i in range(1, 32, 2):
        total += term / i
        term *= square
    return 2 * total + power * LOG_2


@njit(**INNER)
def weigh(x, first, last, top, scale, cutoff, least, weights, start):
    """Weights e^((x - top) scale) of a block from `start` on, 0 where x is below `cutoff` or they below `least`."""
    total = np.float32(0)
    for i in range(last - first):
        power = (x[first + i] - top) * scale
        weight = exponential(power)
        counts = (x[first + i] >= cutoff) & (power > UNDERFLOW) & (weight >= least)
        weight = weight if counts else np.float32(0)
        weights[start + i] = weight
        total += weight
    return total


@njit(**INNER)
def drop_lighter(weights, size, sums, least):
    """Sets weights below `least` to 0; sums up each block anew, and all of them."""
    total = 0.0
    for first in range(0, size, BLOCK):
        part = np.float32(0)
        if sums[first // BLOCK] >= least:
            for i in range(first, min(first + BLOCK, size)):
                weight = weights[i] if weights[i] >= least else np.float32(0)
                weights[i] = weight
                part += weight
        sums[first // BLOCK] = part
        total += part
    return total


@njit(**INNER)
def kth_largest(x, size, k, pool, buckets):
    """The `k`-th largest of `size` numbers."""
    least, num_columns = LOWEST_KEY, max(COLUMNS_PER_K * k, at.LANES)
    if 2 * num_columns <= size:
        # The largest of each column are numbers of their own, so at least k numbers reach the k-th of these.
        for i in range(num_columns):
            pool[i] = x[i]
        for first in range(num_columns, size - num_columns + 1, num_columns):
            for i in range(num_columns):
                pool[i] = larger(pool[i], x[first + i])
        select(pool, num_columns, np.float64(k), False, buckets)
        least = key_of(pool[0])
    count = keep(x, 0, size, least, HIGHEST_KEY, pool, 0)
    select(pool, count, np.float64(k), False, buckets)
    return pool[0]


@njit(**INNER)
def end_of_top_p(weights, size, sums, total, part, pool, buckets):
    """The lightest weight of the smallest set with `part` of the sum; of its equals those too many are set to 0."""
    needed, count = part * total, 0
    # Those lighter than this have together less than the rest, even if they were all: none of them is needed.
    low = np.float32((1 - part) * total / size)
    for first in range(0, size, BLOCK):
        if sums[first // BLOCK] >= low:
            count = keep(weights, first, min(first + BLOCK, size), key_of(low), HIGHEST_KEY, pool, count)
    num_equal, above = select(pool, count, needed, True, buckets)
    last, num_wanted, i = pool[0], 1, size
    while num_wanted < num_equal and above + num_wanted * np.float64(last) < needed:
        num_wanted += 1
    while num_equal > num_wanted:
        i -= 1
        if sums[i // BLOCK] >= last and weights[i] == last:
            weights[i] = np.float32(0)
            num_equal -= 1
    return last


@njit(**INNER)
def select(pool, count, needed, by_weight, buckets):
    """Where numbers from the largest down are `needed` many, or sum to as much: how many are equal to the last of them,
    and the sum before these. Only they stay in `pool`."""
    above = 0.0
    while True:
        low, high = np.int64(HIGHEST_KEY), np.int64(LOWEST_KEY)
        for i in range(count):
            low, high = min(low, key_of(pool[i])), max(high, key_of(pool[i]))
        if low >= high:
            return count, above
        shift = 0
        while (high - low) >> shift >= at.NUM_BUCKETS:
            shift += 1
        last = (high - low) >> shift
        for bucket in range(last + 1):
            buckets[bucket] = 0.0
        for i in range(count):
            buckets[(key_of(pool[i]) - low) >> shift] += np.float64(pool[i]) if by_weight else 1.0
        # Where rounding leaves all of them short, the last is the smallest.
        while last > 0 and above + buckets[last] < needed:
            above += buckets[last]
            last -= 1
        low += last << shift
        count = keep(pool, 0, count, low, low + (1 << shift) - 1, pool, 0)


@njit(**INNER)
def keep(x, first, last, low, high, pool, count):
    """Adds numbers with keys from `low` to `high` to the `count` in `pool`, which may be where they are: how many."""
    whole = first + (last - first) // at.LANES * at.LANES
    if whole > first:
        count += keep_between(x, first, whole - first, low, high, pool, count)
    for i in range(whole, last):
        pool[count] = x[i]
        count += 1 if low <= key_of(x[i]) <= high else 0
    return count


@njit(**INNER)
def key_of(number):
    """An integer from -2^31 to 2^31 - 1 that sorts as its number does: see `keep_between`."""
    bits = bits_of_float(number)
    return SIGN_BIT - 1 - bits if bits >= SIGN_BIT else bits
