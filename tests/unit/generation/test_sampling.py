"""Each filter against a definition written another way, and against transformers' own; draws against frequencies."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process

from tinyllm.config import SamplingConfig
from tinyllm.errors import FormatError
from tinyllm.generation import sampling


def random_logits(batch: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    return (4 * np.random.default_rng(seed).standard_normal((batch, vocabulary))).astype(np.float32)


def kept(mask: np.ndarray) -> set[int]:
    return set(np.flatnonzero(mask).tolist())


def weigh(row: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.exp(row - row.max())
    return weights


def filtered(row: np.ndarray, config: SamplingConfig) -> np.ndarray:
    """The probabilities that the filters leave, 0 for those they drop."""
    places, weights = sampling.survivors(row, config)
    whole = np.zeros_like(row)
    whole[slice(None) if places is None else places] = weights
    total: np.ndarray = whole / whole.sum()
    return total


def probabilities(row: np.ndarray) -> list[float]:
    powers = [math.exp(float(x) - float(row.max())) for x in row]
    return [power / sum(powers) for power in powers]


@given(seed=st.integers(0, 10_000), k=st.integers(1, 40))
def test_top_k_keeps_the_k_largest(seed: int, k: int) -> None:
    logits = random_logits(2, 30, seed)
    expected = [set(sorted(range(30), key=(-row).__getitem__)[:k]) for row in logits]
    assert [kept(sampling.top_k(row, k)) for row in logits] == expected


@given(seed=st.integers(0, 10_000), p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_reaches_p(seed: int, p: float) -> None:
    logits = random_logits(2, 30, seed)
    for row in logits:
        chosen = kept(sampling.top_p(weigh(row), p))
        mass, ranked = probabilities(row), sorted(range(30), key=(-row).__getitem__)
        size = next(n for n in range(1, 31) if sum(mass[i] for i in ranked[:n]) >= p - 1e-6)
        assert chosen == set(ranked[:size]) or math.isclose(sum(mass[i] for i in ranked[:size]), p, abs_tol=1e-5)


@given(seed=st.integers(0, 10_000), p=st.floats(0.001, 0.99))
def test_min_p_keeps_what_is_likely_beside_the_likeliest(seed: int, p: float) -> None:
    logits = random_logits(2, 30, seed)
    for row in logits:
        mass, chosen = probabilities(row), kept(sampling.min_p(weigh(row), p))
        wanted = {i for i in range(30) if mass[i] >= p * max(mass)}
        assert all(math.isclose(mass[i], p * max(mass), rel_tol=1e-5) for i in wanted ^ chosen)


def test_the_repetition_penalty_makes_seen_tokens_less_likely() -> None:
    logits, seen = np.array([[2.0, -2.0, 1.0]], np.float32), np.array([[True, True, False]])
    np.testing.assert_allclose(sampling.penalize_repetition(logits, seen, 4.0), [[0.5, -8.0, 1.0]])


@pytest.mark.parametrize("seed", range(5))
def test_the_chain_is_that_of_transformers(seed: int) -> None:
    size = (500, 4_100)[seed % 2]  # where 50 are sought among 4,100, most are not looked at one by one
    logits = random_logits(3, size, seed)
    history = np.random.default_rng(seed).integers(0, size, (3, 40))
    config = SamplingConfig(temperature=0.7, top_k=50, top_p=0.9, min_p=0.02, repetition_penalty=1.3)
    warpers = logits_process.LogitsProcessorList(
        [
            logits_process.RepetitionPenaltyLogitsProcessor(1.3),
            logits_process.TemperatureLogitsWarper(0.7),
            logits_process.TopKLogitsWarper(50),
            logits_process.TopPLogitsWarper(0.9),
            logits_process.MinPLogitsWarper(0.02),
        ]
    )
    expected = torch.softmax(warpers(torch.LongTensor(history), torch.tensor(logits)), dim=-1)
    seen = np.zeros(logits.shape, bool)
    np.put_along_axis(seen, history, True, axis=1)
    rows = [filtered(row, config) for row in sampling.penalize_repetition(logits, seen, 1.3)]
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-7)


def test_equal_logits_survive_together_up_to_the_whole_set() -> None:
    level = np.zeros(10, np.float32)
    assert kept(sampling.top_k(level, 3)) == set(range(10))
    assert kept(sampling.top_p(weigh(level), 0.35)) == {0, 1, 2, 3}
    assert kept(sampling.top_p(weigh(level), 0.5)) == {0, 1, 2, 3, 4}, "a sum that just reaches the part is enough"
    assert np.count_nonzero(sampling.top_p(np.ones(32_000, np.float32), 0.5)) == 16_000


@pytest.mark.parametrize("decimals", [2, 7], ids=["with equals", "without"])
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_top_p_of_a_large_vocabulary_is_that_of_sorting_it(p: float, spread: float, decimals: int) -> None:
    row = (spread * np.random.default_rng(0).standard_normal(20_000)).astype(np.float32).round(decimals)
    ranked = np.argsort(-row, kind="stable")
    weights = weigh(row).astype(np.float64)
    chosen = np.flatnonzero(sampling.top_p(weigh(row), p))
    num_needed = 1 + int(np.searchsorted(weights[ranked].cumsum() / weights.sum(), p))
    assert abs(len(chosen) - num_needed) <= 2  # rounding of the sums
    np.testing.assert_array_equal(chosen, np.sort(ranked[: len(chosen)]))


def test_top_p_where_its_sample_misleads() -> None:
    weights = np.full(20 * sampling.PROBE, 0.1, np.float32)
    weights[::20] = 1  # these alone are in the sample
    assert sampling._about_the_end(weights, 0.5 * weights.sum(), weights.sum()) is None, "else this would show nothing"
    chosen = np.flatnonzero(sampling.top_p(weights, 0.5))
    assert abs(weights[chosen].sum() - 0.5 * weights.sum()) <= 0.2
    assert set(range(0, len(weights), 20)) <= set(chosen.tolist())


def expected_survivors(weights: np.ndarray, top_k: int = 0, top_p: float = 1, min_p: float = 0) -> set[int]:
    """By sorting all, with sums in float64."""
    ranked = np.argsort(-weights, kind="stable")
    if top_k:
        ranked = ranked[: int((weights >= weights[ranked[top_k - 1]]).sum())]
    if top_p < 1:
        mass = weights[ranked].astype(np.float64).cumsum()
        ranked = ranked[: 1 + int(np.searchsorted(mass / mass[-1], top_p))]
    return {int(token) for token in ranked if weights[token] >= min_p * weights.max()}


SETTINGS = [{"top_k": 5}, {"top_k": 40, "top_p": 0.8}, {"min_p": 0.05}, {"top_k": 50, "min_p": 0.1}, {"top_p": 0.9}, {}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_choice_is_one_of_those_that_sorting_leaves(settings: dict[str, Any]) -> None:
    config = SamplingConfig(**{"temperature": 0.7, "top_k": 0, "top_p": 1, **settings})
    logits = random_logits(200, 4_100).round(1)  # with equals
    uniforms = np.random.default_rng(1).random(200)
    tokens = sampling.choose(logits, logits > 99, uniforms, config)
    for row, uniform, token in zip(logits, uniforms, tokens, strict=True):
        weights = np.exp((row - row.max()).astype(np.float64) / 0.7)
        survivors = sorted(expected_survivors(weights, **settings))
        ends = weights[survivors].cumsum() / weights[survivors].sum()
        place = survivors.index(token)
        # A token more or less at the end of top-p's set, by rounding, moves the others by its own probability.
        assert ends[place] >= uniform - 1e-3
        assert place == 0 or ends[place - 1] <= uniform + 1e-3


def test_a_large_vocabulary_is_drawn_by_the_inverse_of_its_distribution() -> None:
    logits, uniforms = random_logits(50, 32_001), np.random.default_rng(1).random(50)
    for row, uniform in zip(logits, uniforms, strict=True):
        token = sampling.draw(weigh(row), uniform)
        cumulative = np.exp(row.astype(np.float64)).cumsum() / np.exp(row.astype(np.float64)).sum()
        assert cumulative[token] >= uniform - 1e-6
        assert token == 0 or cumulative[token - 1] <= uniform + 1e-6


def test_draws_come_in_proportion() -> None:
    weights = np.array([0.5, 0.0001, 0.3, 0.1999], np.float32)
    uniforms = (np.arange(10_000) + 0.5) / 10_000
    counts = np.bincount([sampling.draw(weights, uniform) for uniform in uniforms], minlength=4)
    np.testing.assert_allclose(counts / 10_000, [0.5, 0.0001, 0.3, 0.1999], atol=2e-4)


@pytest.mark.parametrize("size", [20, 5_000])
@given(uniform=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 100))
def test_a_dropped_token_is_never_drawn(size: int, uniform: float, seed: int) -> None:
    """Of so many that are kept, the dropped ones are carried on as zeros."""
    logits = (random_logits(1, size, seed) / 40).astype(np.float32)
    config = SamplingConfig(temperature=1, top_k=0, top_p=0.9)
    places, weights = sampling.survivors(logits[0], config)
    assert places is None
    assert (weights == 0).sum() > 1
    assert weights[sampling.choose(logits, logits > 99, np.array([uniform]), config)[0]] > 0


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_told(temperature: float, odd: float) -> None:
    logits = random_logits(2, 50)
    logits[1, 7] = odd
    with pytest.raises(FormatError, match="not finite: its weights are damaged"):
        sampling.choose(logits, logits > 99, np.array([0.1, 0.2]), SamplingConfig(temperature=temperature))


def test_the_largest_uniform_draws_a_token_that_is_there() -> None:
    for size in (100, 32_000, 32_001):
        assert sampling.draw(np.full(size, 0.1, np.float32), math.nextafter(1, 0)) == size - 1


def test_temperature_zero_is_the_likeliest_token_whatever_the_number() -> None:
    logits = random_logits(4, 50)
    for uniform in (0.0, 0.5, 0.999):
        chosen = sampling.choose(logits, logits > 99, np.full(4, uniform), SamplingConfig(temperature=0))
        np.testing.assert_array_equal(chosen, logits.argmax(axis=1))


@pytest.mark.parametrize("temperature", [1e-40, 1e-6, 1e6])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    for row in random_logits(2, 50):
        assert np.isfinite(filtered(row, SamplingConfig(temperature=temperature))).all()


def test_log_probability_is_that_of_torch() -> None:
    logits, tokens = random_logits(5, 300), np.arange(5)
    expected = torch.log_softmax(torch.tensor(logits), dim=-1)[torch.arange(5), torch.tensor(tokens)]
    np.testing.assert_allclose(sampling.log_probability(logits, tokens), expected, rtol=1e-5)


def test_each_sample_of_each_seed_has_its_own_stream() -> None:
    seeds = [0, 1, 1337, 2**32, 2**32 + 1, 2**62]
    first = {sampling.random_stream(seed, sample).random() for seed in seeds for sample in range(4)}
    assert len(first) == 4 * len(seeds)
    assert sampling.random_stream(7, 2).random() == sampling.random_stream(7, 2).random()
