"""From logits to the next token: pure NumPy functions, the same for every engine.

Filters set the logits of dropped tokens to minus infinity and take and give (V,) or (B, V). They come in the order
of transformers: repetition penalty, temperature, top-k, top-p, min-p. Then one uniform number picks a token by the
inverse of the cumulative distribution, tokens in the order of their ids. Nothing here knows models or text.

Shapes: B samples side by side, V vocabulary.
"""

import math

import numpy as np
import numpy.typing as npt

from tinyllm.config import SamplingConfig

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DROPPED = np.float32(-np.inf)
BLOCK = 32
"""Tokens of which only the largest is looked at first, where a few are sought among a whole vocabulary."""
DRAW_BLOCK = 256
"""Tokens that are summed before the one that is drawn is looked for inside."""
SORTED_AT_ONCE = 512
"""Tokens of which top-p sorts all; of more it first finds the part that matters."""


def random_stream(seed: int, sample: int) -> np.random.Generator:
    """The uniform numbers of one sample: a stream of its own, so that it does not matter who is drawn beside it."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(sample,))))


def choose(logits: Floats, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> Ids:
    """The next token of each sample (B,) for `logits` (B, V), one number of [0, 1) each in `uniforms` (B,).

    `seen` (B, V) marks tokens that occurred, for the repetition penalty.
    """
    if config.repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, config.repetition_penalty)
    if config.temperature == 0:
        likeliest: Ids = logits.argmax(axis=-1)
        return likeliest
    return np.concatenate([_choose_one(row, uniforms[i : i + 1], config) for i, row in enumerate(logits)])


def _choose_one(row: Floats, uniform: Doubles, config: SamplingConfig) -> Ids:
    """Filters and draws among few tokens where the settings leave few; the result is that of the whole row."""
    candidates = _candidates(row, config)
    if candidates is None:
        return draw(filter_logits(row[None], config), uniform)
    among: Ids = candidates[draw(filter_logits(row[candidates][None], config), uniform)]
    return among


def _candidates(row: Floats, config: SamplingConfig) -> Ids | None:
    """Tokens of `row` (V,) among which all survivors of the filters are; None where that may be any."""
    if 0 < config.top_k < len(row) // BLOCK:
        # The largest of each block are tokens of their own, so at least k tokens reach the k-th largest of these.
        tops = row[: len(row) // BLOCK * BLOCK].reshape(BLOCK, -1).max(axis=0)
        return np.flatnonzero(row >= np.partition(tops, -config.top_k)[-config.top_k])
    if config.min_p > 0 and config.top_p == 1 and not config.top_k:
        # A little more than min-p keeps, for rounding; top-p would need the others to know their probability.
        return np.flatnonzero(row >= row.max() + config.temperature * (np.log(config.min_p) - 1e-3))
    return None


def filter_logits(logits: Floats, config: SamplingConfig) -> Floats:
    """`logits` (B, V) after temperature, top-k, top-p and min-p; a setting that is off costs nothing."""
    if config.temperature != 1:
        # The largest becomes 0 first: at a temperature of 1e-30 plain division overflows.
        logits = (logits - logits.max(axis=-1, keepdims=True)) / np.float32(max(config.temperature, 1e-30))
    if config.top_k:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1:
        logits = keep_top_p(logits, config.top_p)
    if config.min_p > 0:
        logits = keep_min_p(logits, config.min_p)
    return logits


def penalize_repetition(logits: Floats, seen: Mask, penalty: float) -> Floats:
    """Divides positive and multiplies negative logits of `seen` tokens by `penalty` (CTRL, Keskar et al. 2019)."""
    factor, penalized, concerned = np.float32(penalty), logits.copy(), logits[seen]
    penalized[seen] = np.where(concerned > 0, concerned / factor, concerned * factor)
    return penalized


def keep_top_k(logits: Floats, k: int) -> Floats:
    """Keeps the `k` largest of each row (Fan et al. 2018), and those as large as the last of them."""
    size = logits.shape[-1]
    if k >= size:
        return logits
    # partition puts the k-th largest in its place in linear time, without sorting the others
    least = np.partition(logits, size - k, axis=-1)[..., size - k, None]
    return np.where(logits >= least, logits, DROPPED)


def keep_top_p(logits: Floats, p: float) -> Floats:
    """Keeps the smallest set of tokens of each row whose probabilities sum to at least `p` (Holtzman et al. 2020)."""
    rows = logits.reshape(-1, logits.shape[-1])
    kept = np.stack([_nucleus(row, p) for row in rows])
    return np.where(kept.reshape(logits.shape), logits, DROPPED)


def keep_min_p(logits: Floats, p: float) -> Floats:
    """Keeps tokens at least `p` times as likely as the likeliest of their row (Nguyen et al. 2024)."""
    return np.where(logits >= logits.max(axis=-1, keepdims=True) + np.float32(np.log(p)), logits, DROPPED)


def draw(logits: Floats, uniforms: Doubles) -> Ids:
    """One token of each row of `logits` (B, V) in proportion to its probability: the inverse CDF at `uniforms` (B,)."""
    return np.array([_pick(np.exp(row - row.max()), u) for row, u in zip(logits, uniforms, strict=True)], np.int64)


def _pick(weights: Floats, uniform: float) -> int:
    """The place in `weights` (V,) at the part `uniform` of their sum; among many first its block, then inside."""
    first, target = 0, None
    if len(weights) > 2 * DRAW_BLOCK:
        size = len(weights) // DRAW_BLOCK * DRAW_BLOCK
        sums = np.append(weights[:size].reshape(-1, DRAW_BLOCK).sum(axis=1), weights[size:].sum())
        ends = sums.cumsum(dtype=np.float64)
        block, target = _reach(ends, uniform * ends[-1])
        first = block * DRAW_BLOCK
        weights = weights[first : first + DRAW_BLOCK]
    ends = weights.cumsum(dtype=np.float64)
    place, _ = _reach(ends, uniform * ends[-1] if target is None else target)
    return first + place


def _reach(cumulative: Doubles, target: float) -> tuple[int, float]:
    """The first place where `cumulative` exceeds `target`, and by how much the target exceeds the place before."""
    # Rounding may put the target on the total itself, which no place reaches past.
    place = int(cumulative.searchsorted(min(target, math.nextafter(cumulative[-1], 0)), side="right"))
    return place, target - (cumulative[place - 1] if place else 0.0)


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def log_probability(logits: Floats, tokens: Ids) -> Doubles:
    """Natural logarithm of the probability that `logits` (B, V) give to `tokens` (B,): (B,)."""
    top = logits.max(axis=-1)
    normalizer = np.log(np.exp(logits - top[:, None]).sum(axis=-1).astype(np.float64))
    chosen: Floats = logits[np.arange(len(tokens)), tokens]
    result: Doubles = chosen - top - normalizer
    return result


def _nucleus(row: Floats, p: float) -> Mask:
    """Which tokens of `row` (V,) are in the smallest set of probability `p`; of equals, the first ones."""
    probabilities = softmax(row)
    pool, mass, num_kept = probabilities, 0.0, 0
    while len(pool) > SORTED_AT_ONCE:
        # The largest eighth is either more than needed, or all needed: selection by mass instead of by rank.
        split = np.partition(pool, len(pool) - len(pool) // 8)
        rest, largest = split[: -(len(pool) // 8)], split[-(len(pool) // 8) :]
        with_largest = mass + float(largest.sum(dtype=np.float64))
        if with_largest < p:
            pool, mass, num_kept = rest, with_largest, num_kept + len(largest)
        else:
            pool = largest
    ranked = np.sort(pool)[::-1]
    needed = ranked[mass + ranked.cumsum(dtype=np.float64) - ranked < p]
    least = needed[-1] if len(needed) else ranked[0]
    kept: Mask = probabilities > least
    equal = np.flatnonzero(probabilities == least)
    kept[equal[: num_kept + len(needed) - int(kept.sum())]] = True
    return kept
