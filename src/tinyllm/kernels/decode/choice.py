"""Sampling in the compiled program: what `sampling` defines, one row of logits at a time, and nothing is sorted.

Between two tokens the weights of a model go through the caches, and what Python and NumPy need is no longer there:
a choice costs less than half when it is made here. Logits come in blocks. While they are at hand, who computes them
leaves a summary of each: its largest logit, and sums of powers of e. So a choice passes over blocks without survivors.
"""

from typing import Any

import numpy as np
from numba import cfunc, types

from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.blocks import LOGIT_BLOCK
from tinyllm.kernels.decode.forward import FAST, compiled, exponential
from tinyllm.kernels.decode.memory import (
    bits_of_float,
    bytes_,
    doubles,
    float_from_bits,
    floats,
    integers,
    key_of,
    larger,
    plan_at,
)
from tinyllm.kernels.decode.selection import LOWEST, end_of_top_p, guess_of_top_p, kth_largest

LARGEST, INFINITY_KEY = np.finfo(np.float32).max, 0x7F800000
UNDERFLOW = np.float32(-87)
"""Powers of e below this are 0."""
A_LITTLE_MORE = np.float32(1.000001)
"""The heaviest weight of a block times this is not below any that another loop rounds otherwise."""
DAMAGED = np.float32(-1)
"""Sum of a block with numbers that are not finite."""
LOG_2 = 0.6931471805599453


def compile_entry() -> Any:
    """`choose` as a C function of the plan's address, a row and the chunk that it is in."""

    @cfunc(types.void(types.int64, types.int64, types.int64), **FAST)
    def entry(address, row, chunk):
        choose(plan_at(address), row, chunk)

    return entry


@compiled
def choose(plan, row, chunk):
    """Draws the next token of one text, with its log-probability; marks the plan where logits are not finite."""
    size, num_blocks = plan.vocab_size, plan.vocab_columns // LOGIT_BLOCK
    raw, tops, sums = (
        floats(plan.sampled_logits + 4 * row * size),
        summary(plan, row, at.TOPS),
        summary(plan, row, at.SUMS),
    )
    if row >= plan.num_summarized or plan.sampled_logits != plan.logits:
        summarize(plan, row, raw, 0, size)
    top, total, num_damaged = largest(tops, 0, num_blocks), 0.0, 0
    for block in range(num_blocks):
        total += sums[block] * exponential(tops[block] - top)
        num_damaged += 1 if sums[block] == DAMAGED else 0
    if num_damaged > 0:
        plan.not_finite = 1
        return
    logits, best, penalty = raw, top, np.float32(plan.repetition_penalty)
    if penalty != 1:
        logits = floats(numbers_address(plan, chunk, at.PENALIZED))
        penalize(plan, row, raw, bytes_(plan.seen + row * size), size, penalty, logits)
        best = largest(tops, 0, num_blocks)
    if plan.temperature == 0:
        token = find(logits, tops, best)
    else:
        token = draw(plan, row, chunk, logits, best, doubles(plan.uniforms)[row])
    integers(plan.chosen)[row] = token
    doubles(plan.log_probabilities)[row] = raw[token] - top - logarithm(total)


@compiled
def draw(plan, row, chunk, logits, top, uniform):
    """A token by the inverse of the cumulative distribution; weights e^((logit - top) / temperature) stand for it."""
    size, num_blocks = plan.vocab_size, plan.vocab_columns // LOGIT_BLOCK
    tops, sums = summary(plan, row, at.TOPS), doubles(plan.sampling_sums + 8 * chunk * (num_blocks + at.NUM_CUTS))
    weights, pool = floats(numbers_address(plan, chunk, at.WEIGHTS_LEFT)), floats(numbers_address(plan, chunk, at.POOL))
    scale, cutoff, part, least = sharpness(plan), LOWEST, plan.top_p, np.float32(plan.min_p)
    if 0 < plan.top_k < size:
        cutoff = kth_largest(logits, size, tops, num_blocks, plan.top_k, pool)
    # Only top-p, which comes before min-p, reads weights again; else each block's go where those of the last one were.
    stride, at_once = (LOGIT_BLOCK, np.float32(0)) if part < 1 else (0, least)
    are_summed = cutoff == LOWEST and at_once == 0
    if part < 1 or not are_summed:
        weigh_heaviest(tops, num_blocks, top, scale, cutoff, pool)
    if are_summed:
        left = sum_blocks(tops, summary(plan, row, at.SHARPENED_SUMS), num_blocks, top, scale, sums)
    else:
        left = weigh_blocks(logits, size, pool, top, scale, cutoff, at_once, weights, stride, sums)
    if part < 1:
        needed = part * left
        # Those lighter than this have together less than the rest, even if they were all: none of them is needed.
        surely = low = np.float32((left - needed) / size)
        if are_summed:  # weights were not needed till now, and only heavy ones are
            low = guess_of_top_p(pool, sums, num_blocks, left, needed, surely)
            while weigh_blocks(logits, size, pool, top, scale, cutoff, low, weights, stride, sums) < needed:
                if low == surely:
                    break  # rounding leaves all of them short
                low = larger(surely, low / 4)
        for block in range(num_blocks):
            sums[block] = pool[block] * A_LITTLE_MORE if pool[block] >= low else np.float32(0)
        least = larger(least, end_of_top_p(weights, size, sums, needed, low, pool))
        left = sum_heavier(weights, size, sums, least)
    block, rest = find_block(sums, num_blocks, uniform * left)
    first, last = block * LOGIT_BLOCK, min(size, (block + 1) * LOGIT_BLOCK)
    if part == 1:
        weigh(logits, first, last, top, scale, cutoff, least, weights, 0)
    return first + find_inside(weights, block * stride, last - first, least, rest)


@compiled
def summarize(plan, row, x, first, last):
    """Of each block of `x` from `first` to `last` the largest, top; and the sums of e^(x - top), and of that sharpened.

    Sharpened is e^((x - top) / temperature).
    """
    tops, sums, sharpened = (
        summary(plan, row, at.TOPS),
        summary(plan, row, at.SUMS),
        summary(plan, row, at.SHARPENED_SUMS),
    )
    scale = sharpness(plan)
    for start in range(first, last, LOGIT_BLOCK):
        block, end = start // LOGIT_BLOCK, min(last, start + LOGIT_BLOCK)
        top, total, sharpened_total = largest(x, start, end), np.float32(0), np.float32(0)
        if scale == 1:
            for i in range(start, end):
                total += exponential(x[i] - top)
            sharpened_total = total
        else:
            for i in range(start, end):
                total += exponential(x[i] - top)
                sharpened_total += exponential((x[i] - top) * scale)
        tops[block], sums[block], sharpened[block] = top, total, sharpened_total
        if not are_finite(x, start, end):
            sums[block] = DAMAGED


@compiled
def sharpness(plan):
    """The inverse of the temperature; 1 where it is 0, and nothing is drawn."""
    return np.float32(1 if plan.temperature == 0 else 1 / max(plan.temperature, 1e-30))


@compiled
def sum_blocks(tops, sharpened, num_blocks, top, scale, sums):
    """The weights of each block together, from its summary; and of all."""
    total = 0.0
    for block in range(num_blocks):
        power = (tops[block] - top) * scale
        weight = sharpened[block] * exponential(power)
        sums[block] = weight if power > UNDERFLOW else np.float32(0)
        total += sums[block]
    return total


@compiled
def weigh_heaviest(tops, num_blocks, top, scale, cutoff, heaviest):
    """The heaviest weight of each block, from its largest number; 0 where that is below `cutoff`."""
    for block in range(num_blocks):
        weight = exponential((tops[block] - top) * scale)
        heaviest[block] = weight if tops[block] >= cutoff else np.float32(0)


@compiled
def weigh_blocks(x, size, heaviest, top, scale, cutoff, least, weights, stride, sums):
    """The weights of blocks whose `heaviest` is at least `least`, and above 0; their sums; the total."""
    total = 0.0
    for first in range(0, size, LOGIT_BLOCK):
        block = first // LOGIT_BLOCK
        sums[block] = 0.0
        if heaviest[block] >= least and heaviest[block] > 0:
            last = min(size, first + LOGIT_BLOCK)
            sums[block] = weigh(x, first, last, top, scale, cutoff, least, weights, block * stride)
        total += sums[block]
    return total


@compiled
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


@compiled
def find_inside(weights, start, count, least, target):
    """The first of `count` places with which the sum of weights exceeds `target`; else the last that has any.

    Weights below `least` do not count.
    """
    chosen, total = 0, 0.0
    for i in range(count):
        weight = weights[start + i] if weights[start + i] >= least else np.float32(0)
        if weight > 0 and total <= target:
            chosen = i
        total += weight
    return chosen


@compiled
def numbers_address(plan, chunk, which):
    """Where a chunk works on float32: weights, a pool to select from, or penalized logits, for each token."""
    return plan.sampling_numbers + 4 * (chunk * at.NUM_SAMPLING_NUMBERS + which) * plan.vocab_columns


@compiled
def summary(plan, row, which):
    """Numbers for each block of a row of logits."""
    num_blocks = plan.vocab_columns // LOGIT_BLOCK
    return floats(plan.summaries + 4 * num_blocks * (row * at.NUM_SUMMARIES + which))


@compiled
def are_finite(x, first, last):
    """Whether no number is a NaN or infinite, told from its key: fast arithmetic takes every number for finite."""
    least, most = np.int32(0), np.int32(0)
    for i in range(first, last):
        least, most = min(least, key_of(x[i])), max(most, key_of(x[i]))
    return least > ~INFINITY_KEY and most < INFINITY_KEY


@compiled
def penalize(plan, row, raw, seen, size, penalty, result):
    """Divides positive and multiplies negative logits of tokens that occurred; mends the summary of their blocks."""
    for first in range(0, size, LOGIT_BLOCK):
        last, num_seen = min(size, first + LOGIT_BLOCK), 0
        for i in range(first, last):
            x = raw[i]
            less = x / penalty if x > 0 else x * penalty
            result[i] = max(LOWEST, min(less, LARGEST)) if seen[i] != 0 else x
            num_seen += seen[i]
        if num_seen > 0:
            summarize(plan, row, result, first, last)


@compiled
def find(x, tops, wanted):
    """The first place of the largest number."""
    block = 0
    while tops[block] != wanted:
        block += 1
    i = block * LOGIT_BLOCK
    while x[i] != wanted:
        i += 1
    return i


@compiled
def largest(x, first, last):
    """The largest of some numbers."""
    top = LOWEST
    for i in range(first, last):
        top = larger(top, x[i])
    return top


@compiled
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


@compiled
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


@compiled
def sum_heavier(weights, size, sums, least):
    """Sums up each block anew without weights below `least`; and all of them."""
    total = 0.0
    for first in range(0, size, LOGIT_BLOCK):
        part = np.float32(0)
        if sums[first // LOGIT_BLOCK] >= least:
            for i in range(first, min(first + LOGIT_BLOCK, size)):
                part += weights[i] if weights[i] >= least else np.float32(0)
        sums[first // LOGIT_BLOCK] = part
        total += part
    return total
