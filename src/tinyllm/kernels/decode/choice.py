"""Sampling in the compiled program: the choice that `generation/sampling.py` defines, for one row of logits.

Python and NumPy would find their code evicted from the caches by the model's weights; here a choice costs a fraction.
"""

import numpy as np

from tinyllm.kernels.decode.blocks import SUM_BLOCK
from tinyllm.kernels.decode.forward import LOWEST, compiled, exponential, largest
from tinyllm.kernels.decode.memory import bytes_, doubles, floats, integers, key_of
from tinyllm.kernels.decode.selection import keep_top_p, measure, top_k_cutoff

LARGEST, INFINITY_KEY = np.finfo(np.float32).max, 0x7F800000
SMALLEST_POWER = np.float32(-87)
"""Weights e^x of a smaller x are 0."""
LOWEST_TEMPERATURE = 1e-30


@compiled
def choose(plan, row, chunk):
    """Writes the next token of one text, its logit below the largest, and the normalizer of its log-probability.

    log p = chosen_logits - log(normalizers), before any filter. Sets `not_finite` for a NaN or infinite logit.
    """
    size = plan.vocab_size
    logits, scores = floats(plan.sampled_logits + 4 * row * size), floats(plan.weighed + 4 * chunk * plan.vocab_columns)
    if not are_finite(logits, size):
        plan.not_finite = 1
        return
    top, normalizer = largest(logits, size), 0.0
    for first in range(0, size, SUM_BLOCK):
        part = np.float32(0)
        for i in range(first, min(first + SUM_BLOCK, size)):
            part += exponential(logits[i] - top)
        normalizer += part
    penalize(logits, bytes_(plan.seen + row * size), size, np.float32(plan.repetition_penalty), scores)
    best = largest(scores, size)
    if plan.temperature == 0:
        token = 0
        while scores[token] != best:
            token += 1
    else:
        weigh(plan, scores, size, best)
        token = pick(scores, size, doubles(plan.uniforms)[row])
    integers(plan.chosen)[row] = token
    doubles(plan.chosen_logits)[row] = logits[token] - top
    doubles(plan.normalizers)[row] = normalizer


@compiled
def penalize(logits, seen, size, penalty, result):
    """Writes the logits after the repetition penalty: those of seen tokens lowered, clipped to finite numbers."""
    for i in range(size):
        x = logits[i]
        lowered = x / penalty if x > 0 else x * penalty
        result[i] = max(LOWEST, min(lowered, LARGEST)) if seen[i] != 0 else x


@compiled
def weigh(plan, scores, size, best):
    """Replaces scores by weights e^((score - best) / temperature), 0 for tokens that top-k, top-p or min-p drops."""
    cutoff, least = LOWEST, np.float32(plan.min_p)
    if 0 < plan.top_k < size:
        cutoff = top_k_cutoff(scores, size, plan.top_k, best)
    scale = np.float32(1 / max(plan.temperature, LOWEST_TEMPERATURE))
    for i in range(size):
        power = (scores[i] - best) * scale
        scores[i] = exponential(power) if (scores[i] >= cutoff) & (power > SMALLEST_POWER) else np.float32(0)
    if plan.top_p < 1:
        keep_top_p(scores, size, plan.top_p)
    if least > 0:
        for i in range(size):
            scores[i] = scores[i] if scores[i] >= least else np.float32(0)


@compiled
def pick(weights, size, uniform):
    """The first token at which the running sum of weights exceeds `uniform` times their sum.

    If rounding leaves none, it is the last token whose weight is above 0.
    """
    target, token, start, rest = uniform * measure(weights, size, np.float32(0), True), 0, 0, 0.0
    for first in range(0, size, SUM_BLOCK):
        part = np.float32(0)
        for i in range(first, min(first + SUM_BLOCK, size)):
            part += weights[i]
        if part > 0:
            start, rest = first, target
        if target < part:
            break
        target -= part
    total = 0.0
    for i in range(start, min(start + SUM_BLOCK, size)):
        if weights[i] > 0 and total <= rest:
            token = i
        total += weights[i]
    return token


@compiled
def are_finite(x, size):
    """Whether no number is NaN or infinite, by its key: fast arithmetic assumes that every number is finite."""
    least, most = np.int32(0), np.int32(0)
    for i in range(size):
        least, most = min(least, key_of(x[i])), max(most, key_of(x[i]))
    return least > ~INFINITY_KEY and most < INFINITY_KEY
