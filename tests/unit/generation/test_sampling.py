"""Sampling against transformers' logits processors, against definitions in plain Python, and against frequencies."""

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process as processors

from tinyllm.config import SamplingConfig
from tinyllm.errors import ConfigError, FormatError
from tinyllm.generation import sampling

Floats = npt.NDArray[np.float32]
ROUNDING = 1e-5
"""A probability this close to a filter's limit may fall on either side of it."""


def random_logits(num_rows: int, vocab_size: int, seed: int = 0) -> Floats:
    logits: Floats = (4 * np.random.default_rng(seed).standard_normal((num_rows, vocab_size))).astype(np.float32)
    return logits


def weights_of(row: Floats) -> Floats:
    weights: Floats = np.exp(row - row.max())
    return weights


def ids(mask: npt.NDArray[np.bool_]) -> set[int]:
    return set(np.flatnonzero(mask).tolist())


def probabilities(row: Floats, config: SamplingConfig) -> Floats:
    weights = sampling.filtered_weights(row, config)
    normalized: Floats = weights / weights.sum()
    return normalized


def probabilities_of_transformers(
    logits: Floats, history: npt.NDArray[np.int64], config: SamplingConfig
) -> npt.NDArray[np.float32]:
    """The probabilities (B, V) after transformers' processors; `history` (B, T) holds the ids that occurred."""
    chain = processors.LogitsProcessorList()
    if config.repetition_penalty != 1:
        chain.append(processors.RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    chain.append(processors.TemperatureLogitsWarper(float(config.temperature)))
    if config.top_k:
        chain.append(processors.TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        chain.append(processors.TopPLogitsWarper(config.top_p))
    if config.min_p:
        chain.append(processors.MinPLogitsWarper(config.min_p))
    ids = cast(torch.LongTensor, torch.tensor(history))
    scores = cast(torch.FloatTensor, torch.tensor(logits))
    expected: npt.NDArray[np.float32] = torch.softmax(chain(ids, scores), dim=-1).numpy()
    return expected


SETTINGS = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.8},
    {"top_k": 1},
    {"top_k": 50},
    {"top_k": 5_000},
    {"top_p": 0.05},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"min_p": 0.02},
    {"min_p": 0.9},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("vocab_size", [500, 4_100])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters_equal_those_of_transformers(settings: dict[str, float], vocab_size: int) -> None:
    config = SamplingConfig.model_validate(settings)
    logits = random_logits(5, vocab_size, seed=vocab_size)
    history = np.random.default_rng(0).integers(0, vocab_size, (5, 40))
    seen = np.zeros(logits.shape, np.bool_)
    np.put_along_axis(seen, history, True, axis=1)
    penalized = sampling.penalize_repetition(logits, seen, config.repetition_penalty)
    actual = np.stack([probabilities(row, config) for row in penalized])
    expected = probabilities_of_transformers(logits, history, config)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 40))
def test_top_k_keeps_the_k_largest(seed: int, k: int) -> None:
    row = random_logits(1, 30, seed)[0]
    assert ids(sampling.top_k(row, k)) == set(sorted(range(30), key=lambda i: -row[i])[:k])


@given(seed=st.integers(0, 10_000), p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_reaches_p(seed: int, p: float) -> None:
    weights = weights_of(random_logits(1, 30, seed)[0])
    share = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    kept = sampling.top_p(weights, p)
    assert share[kept].sum() >= p - ROUNDING
    assert share[kept].sum() - share[kept].min() <= p + ROUNDING
    assert share[kept].min() >= share[~kept].max(initial=0)


@given(seed=st.integers(0, 10_000), p=st.floats(0.001, 0.99))
def test_min_p_keeps_tokens_of_p_times_the_largest_probability(seed: int, p: float) -> None:
    weights = weights_of(random_logits(1, 30, seed)[0])
    expected = {i for i, weight in enumerate(weights) if weight >= p}
    assert all(math.isclose(weights[i], p, rel_tol=ROUNDING) for i in expected ^ ids(sampling.min_p(weights, p)))


def test_repetition_penalty_lowers_seen_logits_of_either_sign() -> None:
    logits, seen = np.array([[2.0, -2.0, 1.0]], np.float32), np.array([[True, True, False]])
    np.testing.assert_allclose(sampling.penalize_repetition(logits, seen, 4.0), [[0.5, -8.0, 1.0]])


def test_biases_and_penalties_are_those_of_a_plain_loop_in_the_order_of_vllm() -> None:
    """OpenAI's definitions, and the repetition penalty between them, token by token in float64."""
    logits, random = random_logits(3, 60), np.random.default_rng(5)
    generated = [[int(token) for token in random.integers(0, 20, count)] for count in (0, 7, 40)]
    seen = random.random(logits.shape) < 0.3
    config = SamplingConfig(
        logit_bias=((3, -100), (4, 2.5), (59, 7)),
        repetition_penalty=1.4,
        presence_penalty=-1.25,
        frequency_penalty=0.75,
    )
    before = logits.copy()
    adjusted = sampling.adjust(logits, seen, generated, config)
    for number, tokens in enumerate(generated):
        for token in range(60):
            logit = float(logits[number, token]) + {3: -100, 4: 2.5, 59: 7}.get(token, 0)
            if seen[number, token]:
                logit = logit / 1.4 if logit > 0 else logit * 1.4
            count = sum(1 for each in tokens if each == token)
            logit -= 0.75 * count + (-1.25 if count else 0)
            assert math.isclose(adjusted[number, token], logit, rel_tol=1e-5, abs_tol=1e-5)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize(
    "settings", [{"logit_bias": {7: 1}}, {"presence_penalty": 0.1}, {"frequency_penalty": -0.1}], ids=str
)
def test_each_adjustment_is_noticed(settings: dict[str, Any]) -> None:
    config, logits = SamplingConfig.model_validate(settings), random_logits(1, 50)
    assert sampling.has_adjustments(config)
    assert (sampling.adjust(logits, logits > 99, [[7, 7]], config) != logits).sum() == 1
    assert not sampling.has_adjustments(SamplingConfig(temperature=0.2, top_k=3, repetition_penalty=2))


def test_a_bias_of_a_token_that_the_vocabulary_does_not_have_is_refused() -> None:
    sampling.check_biases(SamplingConfig(logit_bias=((0, 1), (319, 1))), 320)
    with pytest.raises(ConfigError, match="logit_bias names token 320; the ids of this model are 0 to 319"):
        sampling.check_biases(SamplingConfig(logit_bias=((4, 1), (320, 1))), 320)


def test_ties_survive_top_k_together_and_top_p_by_id() -> None:
    level = np.zeros(10, np.float32)
    assert ids(sampling.top_k(level, 3)) == set(range(10))
    assert ids(sampling.top_p(weights_of(level), 0.35)) == {0, 1, 2, 3}
    assert ids(sampling.top_p(weights_of(level), 0.5)) == {0, 1, 2, 3, 4}, "a sum equal to the share is enough"
    assert np.count_nonzero(sampling.top_p(np.ones(32_000, np.float32), 0.5)) == 16_000
    assert ids(sampling.top_p(np.array([1, 5, 1, 1], np.float32), 0.8)) == {0, 1, 2}


@pytest.mark.parametrize("settings", [{}, {"top_k": 40, "top_p": 0.8}, {"min_p": 0.05}, {"top_p": 0.9}], ids=str)
def test_choose_inverts_the_cumulative_distribution_in_order_of_ids(settings: dict[str, float]) -> None:
    config = SamplingConfig.model_validate({"temperature": 0.7, **settings})
    logits, uniforms = random_logits(50, 4_100), np.random.default_rng(1).random(50)
    expected = probabilities_of_transformers(logits, np.zeros((50, 1), np.int64), config).astype(np.float64)
    tokens = sampling.choose(logits, np.zeros(logits.shape, np.bool_), uniforms, config)
    for row, uniform, token in zip(expected.cumsum(axis=1), uniforms, tokens, strict=True):
        assert row[token] >= uniform - 1e-4
        assert token == 0 or row[token - 1] <= uniform + 1e-4


def test_picks_occur_in_proportion_to_weights() -> None:
    weights = np.array([0.5, 0.0001, 0.3, 0.1999], np.float32)
    uniforms = (np.arange(10_000) + 0.5) / 10_000
    counts = np.bincount([sampling.pick(weights, uniform) for uniform in uniforms], minlength=4)
    np.testing.assert_allclose(counts / 10_000, weights, atol=2e-4)


@given(uniform=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 100))
def test_a_dropped_token_is_never_picked(uniform: float, seed: int) -> None:
    weights = sampling.filtered_weights(random_logits(1, 20, seed)[0] / 40, SamplingConfig(top_p=0.9))
    assert (weights == 0).sum() > 1
    assert weights[sampling.pick(weights, uniform)] > 0


@pytest.mark.parametrize("size", [100, 32_000, 32_001])
def test_the_largest_uniform_number_picks_the_last_token(size: int) -> None:
    assert sampling.pick(np.full(size, 0.1, np.float32), math.nextafter(1, 0)) == size - 1


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_raise(temperature: float, odd: float) -> None:
    logits = random_logits(2, 50)
    logits[1, 7] = odd
    with pytest.raises(FormatError, match="not finite: its weights are damaged"):
        sampling.choose(logits, logits > 99, np.array([0.1, 0.2]), SamplingConfig(temperature=temperature))


@pytest.mark.parametrize("uniform", [0.0, 0.5, 0.999])
def test_temperature_zero_takes_the_most_likely_token(uniform: float) -> None:
    logits = random_logits(4, 50)
    chosen = sampling.choose(logits, logits > 99, np.full(4, uniform), SamplingConfig(temperature=0))
    np.testing.assert_array_equal(chosen, logits.argmax(axis=1))


@pytest.mark.parametrize("temperature", [1e-40, 1e-6, 1e6])
def test_extreme_temperatures_give_finite_probabilities(temperature: float) -> None:
    for row in random_logits(2, 50):
        assert np.isfinite(probabilities(row, SamplingConfig(temperature=temperature))).all()


def test_log_probability_equals_that_of_torch() -> None:
    logits, tokens = random_logits(5, 300), np.arange(5)
    expected = torch.log_softmax(torch.tensor(logits), dim=-1)[torch.arange(5), torch.tensor(tokens)]
    np.testing.assert_allclose(sampling.log_probability(logits, tokens), expected, rtol=1e-5)


def test_each_sample_of_each_seed_has_its_own_stream() -> None:
    seeds = [0, 1, 1337, 2**32, 2**32 + 1, 2**62]
    first = {sampling.random_stream(seed, sample).random() for seed in seeds for sample in range(4)}
    assert len(first) == 4 * len(seeds)
    assert sampling.random_stream(7, 2).random() == sampling.random_stream(7, 2).random()
