"""From logits to the next token: pure NumPy functions, the same for every engine.

Filters set the logits of dropped tokens to minus infinity and take and give (V,) or (B, V). They come in the order
of transformers: repetition penalty, temperature, top-k, top-p, min-p. Then one uniform number picks a token by the
inverse of the cumulative distribution, tokens in the order of their ids. Nothing here knows models or text.

Shapes: B samples side by side, V vocabulary.
"""

import numpy as np
import numpy.typing as npt

from tinyllm.config import SamplingConfig

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DROPPED = np.float32(-np.inf)


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
    return draw(filter_logits(logits, config), uniforms)


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
    factor = np.float32(penalty)
    return np.where(seen, np.where(logits > 0, logits / factor, logits * factor), logits)


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
    chosen = np.empty(len(logits), np.int64)
    for index, (row, uniform) in enumerate(zip(logits, uniforms, strict=True)):
        ids = np.flatnonzero(row > DROPPED)
        kept = row[ids]
        cumulative = np.exp(kept - kept.max()).cumsum(dtype=np.float64)
        # Rounding may put uniform x total on the total itself, which no token reaches past.
        target = min(uniform * cumulative[-1], np.nextafter(cumulative[-1], 0))
        chosen[index] = ids[np.searchsorted(cumulative, target, side="right")]
    return chosen


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def log_probability(logits: Floats, tokens: Ids) -> Doubles:
    """Natural logarithm of the probability that `logits` (B, V) give to `tokens` (B,): (B,)."""
    top = logits.max(axis=-1)
    normalizer = np.log(np.exp(logits - top[:, None]).sum(axis=-1, dtype=np.float64))
    chosen: Floats = logits[np.arange(len(tokens)), tokens]
    result: Doubles = chosen - top - normalizer
    return result


def _nucleus(row: Floats, p: float) -> Mask:
    """Which tokens of `row` (V,) are in the smallest set of probability `p`."""
    probabilities = softmax(row)
    # A token below this cannot be needed: it and all below it sum to less than 1 - p. Only the others are sorted.
    candidates = np.flatnonzero(probabilities * len(row) >= 1 - p)
    ranked = candidates[np.argsort(-probabilities[candidates])]
    before = probabilities[ranked].cumsum(dtype=np.float64) - probabilities[ranked]
    kept = np.zeros(len(row), np.bool_)
    kept[ranked[before < p]] = True
    return kept
