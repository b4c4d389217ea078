"""From logits to the next token: pure NumPy functions, which define sampling for every engine.

The filters are those of transformers, in an order that gives the same: repetition penalty, top-k, temperature, top-p,
min-p. The last three filters say of each token whether it is kept, and where few are, what comes after has only these
to look at. Top-p and min-p look at weights, which are in proportion to probabilities. Then one uniform number picks a
token by the inverse of the cumulative distribution, tokens in the order of their ids. Nothing here knows models or
text. The CPU engine chooses in its compiled program (`kernels.decode.choice`), to the same effect.

Shapes: B samples side by side, V vocabulary; a filter takes one row (V,), or what others left of it.
"""

import math

import numpy as np
import numpy.typing as npt

from tinyllm.config import SamplingConfig
from tinyllm.errors import FormatError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LIMITS = np.finfo(np.float32)
BLOCK = 32
"""Tokens of which only the largest is looked at first, where a few are sought among a whole vocabulary."""
SUM_BLOCK = 256
"""Tokens that are summed before the one where a sum is reached is looked for inside."""
SUMMED_AT_ONCE = 4096
"""Up to so many tokens are added up one by one; of more, whole blocks first."""
SORTED_AT_ONCE = 4096
"""Tokens of which top-p sorts all; of more it first finds those about the end of its set."""
PROBE = 1024
"""Size of the sample that tells about where top-p's set ends."""
FEW = 8
"""Of so many tokens one is kept, or fewer: then it pays to gather them."""


def random_stream(seed: int, sample: int) -> np.random.Generator:
    """The uniform numbers of one sample: a stream of its own, so that it does not matter who is drawn beside it."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(sample,))))


def choose(logits: Floats, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> Ids:
    """The next token of each sample (B,) for `logits` (B, V), one number of [0, 1) each in `uniforms` (B,).

    `seen` (B, V) marks tokens that occurred, for the repetition penalty. Raises FormatError for logits not finite.
    """
    if not np.isfinite(logits).all():
        raise not_finite()
    if config.repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, config.repetition_penalty)
    if config.temperature == 0:
        likeliest: Ids = logits.argmax(axis=-1)
        return likeliest
    return np.array(
        [_choose_one(row, uniform, config) for row, uniform in zip(logits, uniforms, strict=True)], np.int64
    )


def not_finite() -> FormatError:
    """What is told of logits that are no numbers."""
    return FormatError("the model's logits are not finite: its weights are damaged, or its training went wrong")


def _choose_one(row: Floats, uniform: float, config: SamplingConfig) -> int:
    places, weights = survivors(row, config)
    place = draw(weights, uniform)
    return place if places is None else int(places[place])


def survivors(row: Floats, config: SamplingConfig) -> tuple[Ids | None, Floats]:
    """The tokens of the logits `row` (V,) that the settings leave, and how likely each is beside the likeliest.

    None stands for all tokens; one that is dropped may still be among them, with 0. Settings that are off cost nothing.
    """
    places: Ids | None = None
    if 0 < config.top_k < len(row):
        places = np.flatnonzero(_reach_top_k(row, config.top_k))
        places, row = _gather(top_k(row[places], config.top_k), places, row[places])
    weights = row - row.max()
    if config.temperature != 1:
        weights /= np.float32(max(config.temperature, 1e-30))
    np.exp(weights, out=weights)
    if config.top_p < 1:
        places, weights = _leave(top_p(weights, config.top_p), places, weights)
    if config.min_p > 0:
        places, weights = _leave(min_p(weights, config.min_p), places, weights)
    return places, weights


def _leave(kept: Mask, places: Ids | None, weights: Floats) -> tuple[Ids | None, Floats]:
    """Few are gathered; to gather many takes longer than to carry the dropped ones on, as zeros."""
    if np.count_nonzero(kept) > len(kept) // FEW:
        return places, weights * kept
    return _gather(kept, places, weights)


def _gather(kept: Mask, places: Ids | None, numbers: Floats) -> tuple[Ids, Floats]:
    chosen = np.flatnonzero(kept)  # as an index faster than the mask itself
    return chosen if places is None else places[chosen], numbers[chosen]


def penalize_repetition(logits: Floats, seen: Mask, penalty: float) -> Floats:
    """Divides positive and multiplies negative logits of `seen` tokens by `penalty` (CTRL, Keskar et al. 2019)."""
    factor, penalized, concerned = np.float32(penalty), logits.copy(), logits[seen]
    with np.errstate(over="ignore"):
        penalized[seen] = np.where(concerned > 0, concerned / factor, concerned * factor)
    return penalized.clip(LIMITS.min, LIMITS.max)


def top_k(row: Floats, k: int) -> Mask:
    """The `k` largest of `row` (V,) and those as large as the last of them (Fan et al. 2018)."""
    k = min(k, len(row))
    kept: Mask = row >= np.partition(row, -k)[-k]  # in linear time, without sorting the others
    return kept


def _reach_top_k(row: Floats, k: int) -> Mask:
    """At least what `top_k` keeps, and not many more, where `k` is small; in less time."""
    if k >= len(row) // BLOCK:
        return np.ones(len(row), np.bool_)
    # The largest of each block are tokens of their own, so at least k tokens reach the k-th largest of these.
    tops = row[: len(row) // BLOCK * BLOCK].reshape(BLOCK, -1).max(axis=0)
    mask: Mask = row >= np.partition(tops, -k)[-k]
    return mask


def top_p(weights: Floats, p: float) -> Mask:
    """The smallest set of `weights` (V,) that has the part `p` of their sum; of equals, the first (Holtzman 2020)."""
    total = RunningSum(weights).total
    # Those lighter than this have together less than 1 - p, even if they were all: none of them is needed.
    low, above = (1 - p) * total / len(weights), 0.0
    pool = weights >= low
    if np.count_nonzero(pool) > SORTED_AT_ONCE:
        pool, above = _about_the_end(weights, p * total, total) or (pool, 0.0)
    ranked = np.sort(weights[np.flatnonzero(pool)])[::-1]
    # A sum that just reaches the part is enough; `place` is where it exceeds what it is asked for.
    last = RunningSum(ranked).place(math.nextafter(p * total - above, -math.inf))
    kept: Mask = weights >= ranked[last]
    num_too_many = int(np.count_nonzero(ranked[last + 1 :] == ranked[last]))
    if num_too_many:
        kept[np.flatnonzero(weights == ranked[last])[-num_too_many:]] = False
    return kept


def _about_the_end(weights: Floats, needed: float, total: float) -> tuple[Mask, float] | None:
    """Few of `weights` among which the last is of the heaviest that sum to `needed`, and the sum of all heavier ones.

    Where to look is told by a sample; None where it was wrong, which is rare.
    """
    probe = np.sort(weights[:: -(-len(weights) // PROBE)])
    # Counted from the light end: those are many, so a few are like all.
    light = (total - needed) * len(probe) / len(weights)
    end, margin = int(probe.cumsum().searchsorted(light)), 2 * math.isqrt(len(probe))
    low = probe[end - margin] if end >= margin else 0.0
    high = probe[end + margin] if end + margin < len(probe) else math.inf
    is_heavy, pool = weights >= high, (weights >= low) & (weights < high)
    above = float(np.einsum("i,i", weights, is_heavy.astype(np.float32)))
    is_right = above < needed <= above + float(np.einsum("i,i", weights, pool.astype(np.float32)))
    return (pool, above) if is_right else None


def min_p(weights: Floats, p: float) -> Mask:
    """Those of `weights` (V,) that are at least `p` times as likely as the likeliest (Nguyen et al. 2024)."""
    kept: Mask = weights >= np.float32(p) * weights.max()
    return kept


def draw(weights: Floats, uniform: float) -> int:
    """A token in proportion to `weights` (V,): the inverse of their cumulative distribution at `uniform`."""
    running = RunningSum(weights)
    return running.place(uniform * running.total)


class RunningSum:
    """Where the sum of `weights` (V,), added up from the first, exceeds a target: its block first, then inside."""

    def __init__(self, weights: Floats) -> None:
        self._weights, self._block = weights, 1
        if len(weights) <= SUMMED_AT_ONCE:
            ends = weights.cumsum(dtype=np.float64)
        else:
            self._block = SUM_BLOCK
            size = len(weights) // SUM_BLOCK * SUM_BLOCK
            # As sum(axis=1), in half the time.
            ends = np.einsum("ij->i", weights[:size].reshape(-1, SUM_BLOCK)).cumsum(dtype=np.float64)
            if size < len(weights):
                ends = np.append(ends, ends[-1] + weights[size:].sum())
        self._ends: Doubles = ends
        self.total = float(ends[-1])

    def place(self, target: float) -> int:
        """The first place at which the sum exceeds `target`; the last that counts where rounding leaves none."""
        block, rest = _exceed(self._ends, target)
        if self._block == 1:
            return block
        first = block * self._block
        place, _ = _exceed(self._weights[first : first + self._block].cumsum(dtype=np.float64), rest)
        return first + place


def _exceed(sums: Doubles, target: float) -> tuple[int, float]:
    """The first place where `sums` exceed `target`, and by how much the target exceeds the place before."""
    place = int(sums.searchsorted(min(target, math.nextafter(sums[-1], 0)), side="right"))
    return place, target - (sums[place - 1] if place else 0.0)


def log_probability(logits: Floats, tokens: Ids) -> Doubles:
    """Natural logarithm of the probability that `logits` (B, V) give to `tokens` (B,): (B,)."""
    top = logits.max(axis=-1)
    normalizer = np.log(np.exp(logits - top[:, None]).sum(axis=-1).astype(np.float64))
    chosen: Floats = logits[np.arange(len(tokens)), tokens]
    result: Doubles = chosen - top - normalizer
    return result
