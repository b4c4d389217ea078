"""The definition of sampling: pure NumPy functions from logits to the next token.

The order is logit bias, repetition, frequency and presence penalty, top-k, temperature, top-p, min-p, then the inverse
of the cumulative distribution at one uniform number. The filters are those of transformers; biases and penalties are
OpenAI's, in the order of vLLM. Engines may compute `choose` faster (`kernels/decode/choice.py` does) and are tested
against this module, which knows neither models nor text.

Weights are e^((logit - largest logit) / temperature), in proportion to probabilities; a dropped token has weight 0.

Shapes: B samples, V vocabulary.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tinyllm.config import SamplingConfig
from tinyllm.errors import ConfigError, FormatError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LOWEST_TEMPERATURE = 1e-30
"""A lower temperature is read as this one, which float32 can still divide by."""


def random_stream(seed: int, sample: int) -> np.random.Generator:
    """The uniform numbers of one sample, one a token; independent of the samples beside it."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(sample,))))


def check_biases(config: SamplingConfig, vocab_size: int) -> None:
    """Raises ConfigError if `config.logit_bias` names a token that a vocabulary of `vocab_size` tokens lacks."""
    largest = max((token for token, _ in config.logit_bias), default=0)
    if largest >= vocab_size:
        raise ConfigError(
            f"logit_bias names token {largest}; the ids of this model are 0 to {vocab_size - 1}", parameter="logit_bias"
        )


def has_adjustments(config: SamplingConfig) -> bool:
    """Whether `config` sets what only `adjust` applies: a logit bias, a presence or a frequency penalty."""
    return bool(config.logit_bias or config.presence_penalty or config.frequency_penalty)


def adjust(logits: Floats, seen: Mask, generated: Sequence[Sequence[int]], config: SamplingConfig) -> Floats:
    """A copy of `logits` (B, V) after logit bias, repetition, frequency and presence penalty, in the order of vLLM.

    `seen` (B, V) is that of `choose`, which needs no repetition penalty afterwards. `generated` holds the tokens that
    each sample has drawn: logit - frequency_penalty * count - presence_penalty * (count > 0).
    """
    adjusted = logits.copy()
    if config.logit_bias:
        ids, biases = zip(*config.logit_bias, strict=True)
        adjusted[:, list(ids)] += np.array(biases, np.float32)
    if config.repetition_penalty != 1:
        adjusted = penalize_repetition(adjusted, seen, config.repetition_penalty)
    if config.frequency_penalty or config.presence_penalty:
        for row, tokens in zip(adjusted, generated, strict=True):
            drawn, counts = np.unique(np.array(tokens, np.int64), return_counts=True)
            row[drawn] -= (config.frequency_penalty * counts + config.presence_penalty).astype(np.float32)
    return adjusted


def choose(logits: Floats, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> Ids:
    """The next token of each sample (B,), from `logits` (B, V) and one number in [0, 1) each, `uniforms` (B,).

    `seen` (B, V) marks the tokens that the repetition penalty applies to. Temperature 0 takes the most likely token.
    Raises FormatError for logits that are not finite.
    """
    if not np.isfinite(logits).all():
        raise not_finite()
    if config.repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, config.repetition_penalty)
    if config.temperature == 0:
        likeliest: Ids = logits.argmax(axis=-1)
        return likeliest
    rows = zip(logits, uniforms, strict=True)
    return np.array([pick(filtered_weights(row, config), uniform) for row, uniform in rows], np.int64)


def probabilities(row: Floats, seen: Mask, generated: Sequence[int], config: SamplingConfig) -> Doubles:
    """The probability (V,) with which each token is drawn next, from the logits `row` (V,); 0 for one that is cut.

    `seen` (V,) and `generated` are those of `adjust`, for one sample. Raises FormatError if a logit is not finite.
    """
    if not np.isfinite(row).all():
        raise not_finite()
    if has_adjustments(config):
        (row,) = adjust(row[None], seen[None], [generated], config)
    elif config.repetition_penalty != 1:
        (row,) = penalize_repetition(row[None], seen[None], config.repetition_penalty)
    if config.temperature == 0:
        weights = np.zeros(len(row))
        weights[row.argmax()] = 1
        return weights
    weights = filtered_weights(row, config).astype(np.float64)
    drawn: Doubles = weights / weights.sum()
    return drawn


def not_finite() -> FormatError:
    """The error for logits that are NaN or infinite."""
    return FormatError("the model's logits are not finite: its weights are damaged, or its training went wrong")


def filtered_weights(row: Floats, config: SamplingConfig) -> Floats:
    """The weights (V,) of the logits `row` (V,) after top-k, temperature, top-p and min-p."""
    kept = top_k(row, config.top_k)
    weights: Floats = np.exp((row - row.max()) / np.float32(max(config.temperature, LOWEST_TEMPERATURE))) * kept
    weights = weights * top_p(weights, config.top_p)
    return weights * min_p(weights, config.min_p)


def penalize_repetition(logits: Floats, seen: Mask, penalty: float) -> Floats:
    """`logits` (B, V) with those of `seen` tokens lowered (Keskar et al. 2019).

    A positive logit is divided by `penalty`, a negative one is multiplied by it; both stay finite.
    """
    limits = np.finfo(np.float32)
    with np.errstate(over="ignore"):
        penalized = np.where(logits > 0, logits / np.float32(penalty), logits * np.float32(penalty))
    return np.where(seen, penalized, logits).clip(limits.min, limits.max)


def top_k(row: Floats, k: int) -> Mask:
    """Marks the `k` largest of `row` (V,) and all ties with the last of them (Fan et al. 2018); k = 0 marks all."""
    if not 0 < k < len(row):
        return np.ones(len(row), np.bool_)
    kept: Mask = row >= np.sort(row)[-k]
    return kept


def top_p(weights: Floats, p: float) -> Mask:
    """Marks the smallest set of `weights` (V,) with at least the share `p` of their sum (Holtzman et al. 2020).

    The lower ids win ties at the smallest weight of the set.
    """
    if p == 1:
        return np.ones(len(weights), np.bool_)
    ranked = np.sort(weights)[::-1]
    mass = ranked.cumsum(dtype=np.float64)
    last = int(mass.searchsorted(p * mass[-1]))  # the first place where the sum reaches p
    kept: Mask = weights > ranked[last]
    ties = np.flatnonzero(weights == ranked[last])
    kept[ties[: last + 1 - np.count_nonzero(kept)]] = True
    return kept


def min_p(weights: Floats, p: float) -> Mask:
    """Marks the `weights` (V,) of at least `p` times the largest one (Nguyen et al. 2024)."""
    kept: Mask = weights >= np.float32(p) * weights.max()
    return kept


def pick(weights: Floats, uniform: float) -> int:
    """The first token at which the running sum of `weights` (V,) exceeds `uniform` times their sum."""
    sums = weights.cumsum(dtype=np.float64)
    return int(sums.searchsorted(min(uniform * sums[-1], math.nextafter(sums[-1], 0)), side="right"))


def log_probability(logits: Floats, tokens: Ids) -> Doubles:
    """Natural logarithm of the probability (B,) that `logits` (B, V) give to `tokens` (B,), before any filter."""
    top = logits.max(axis=-1)
    normalizer = np.log(np.exp(logits - top[:, None]).sum(axis=-1).astype(np.float64))
    chosen: Floats = logits[np.arange(len(tokens)), tokens]
    result: Doubles = chosen - top - normalizer
    return result
