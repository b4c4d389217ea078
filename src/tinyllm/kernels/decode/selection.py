"""The thresholds of top-k and top-p, by bisection instead of sorting.

A float32 has an int32 key that sorts as the float does, so at most 32 passes over the numbers find a threshold.
"""

import numpy as np

from tinyllm.kernels.decode.blocks import SUM_BLOCK
from tinyllm.kernels.decode.forward import LOWEST, compiled
from tinyllm.kernels.decode.memory import float_from_bits, key_of

MAGNITUDE_BITS = 0x7FFFFFFF


@compiled
def top_k_cutoff(numbers, size, k, top):
    """The threshold of top-k: `k` of `size` numbers reach it, or more if they tie; `top` is the largest number."""
    return find_threshold(numbers, size, np.float64(k), False, LOWEST, top)


@compiled
def keep_top_p(weights, size, p):
    """Zeroes all weights but the smallest set with the share `p` of their sum; lower ids win ties. The largest is 1.

    Weights below (1 - p) sum / size add up to less than the dropped share, so the threshold is not below that.
    Surplus ties at the threshold are zeroed from the last one on.
    """
    total = measure(weights, size, np.float32(0), True)
    needed, lowest = p * total, np.float32((1 - p) * total / size)
    threshold, num_ties, num_kept = find_threshold(weights, size, needed, True, lowest, np.float32(1)), 0, 1
    for i in range(size):
        num_ties += 1 if weights[i] == threshold else 0
        weights[i] = weights[i] if weights[i] >= threshold else np.float32(0)
    above = measure(weights, size, threshold, True) - num_ties * np.float64(threshold)
    while num_kept < num_ties and above + num_kept * np.float64(threshold) < needed:
        num_kept += 1
    i = size
    while num_ties > num_kept:
        i -= 1
        if weights[i] == threshold:
            weights[i] = np.float32(0)
            num_ties -= 1


@compiled
def find_threshold(numbers, size, needed, by_weight, low, high):
    """A threshold t in [`low`, `high`]: the fewest numbers >= t whose count, or sum, is at least `needed`.

    Equal numbers are kept together, so ties at t may give more than the fewest. Returns `low` if all are too few.
    """
    low_key, high_key = np.int64(key_of(low)), np.int64(key_of(high))
    while low_key < high_key:
        middle = (low_key + high_key + 1) >> 1
        threshold = float_of_key(middle)
        total = measure(numbers, size, threshold, by_weight)
        if total < needed:
            high_key = middle - 1
            continue
        low_key = middle
        if total - (threshold if by_weight else np.float32(1)) < needed:
            break
    return float_of_key(low_key)


@compiled
def measure(numbers, size, threshold, by_weight):
    """The number of floats of at least `threshold`, or their sum: float32 inside a block, float64 across blocks."""
    total = 0.0
    for first in range(0, size, SUM_BLOCK):
        part = np.float32(0)
        for i in range(first, min(first + SUM_BLOCK, size)):
            part += (numbers[i] if by_weight else np.float32(1)) if numbers[i] >= threshold else np.float32(0)
        total += part
    return total


@compiled
def float_of_key(key):
    """The float32 of a key, the inverse of `key_of`."""
    return float_from_bits(key ^ ((key >> 31) & MAGNITUDE_BITS))
