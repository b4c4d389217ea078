"""The compiled choice against `generation/sampling.py`: equal tokens from equal logits and uniform numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.config import ModelConfig, SamplingConfig, WeightsKind
from tinyllm.errors import FormatError
from tinyllm.generation import sampling
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.model.transformer import Transformer

Choose = Callable[..., tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 0.3},
    {"temperature": 1e-6},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 300},
    {"top_k": 5_000},
    {"top_p": 0.05},
    {"top_p": 0.5},
    {"top_p": 0.999},
    {"top_p": 1e-6},
    {"top_p": 0.9999999},
    {"min_p": 0.05},
    {"min_p": 0.9},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7, "temperature": 0},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.9},
    {"temperature": 1.5, "top_k": 200, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.1},
]


@pytest.fixture(scope="module")
def engines(compiled_kernels: Callable[[WeightsKind], Kernels]) -> dict[int, CpuEngine]:
    """Engines by vocabulary size: below a vector, odd, whole blocks of sums, and one more than whole vectors."""
    engines = {}
    for size in (7, 203, 1_024, 32_000, 32_001):
        config = ModelConfig(vocab_size=size, hidden_size=8, num_layers=1, num_heads=1, num_kv_heads=1)
        model = Transformer(config)
        model.model.embed_tokens.weight.data *= 40  # logits spread by about 2
        tensors = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
        engines[size] = CpuEngine(config, PackedWeights(config, tensors, "fp32"), compiled_kernels("fp32"), 2)
    return engines


@pytest.fixture(scope="module")
def choosers(engines: dict[int, CpuEngine]) -> dict[int, Choose]:
    return {size: engine.choose for size, engine in engines.items()}


def compare(
    choose: Choose, logits: npt.NDArray[np.float32], settings: dict[str, Any], seed: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    uniforms, seen = random.random(len(logits)), random.random(logits.shape) < 0.3
    config = SamplingConfig(**{"temperature": 1.0, **settings})
    expected = sampling.choose(logits, seen, uniforms, config)
    tokens, log_probabilities = choose(logits, seen, uniforms, config)
    tokens, log_probabilities = tokens.copy(), log_probabilities.copy()
    np.testing.assert_allclose(log_probabilities, sampling.log_probability(logits, tokens), atol=1e-5)
    return tokens, expected


@pytest.mark.parametrize("spread", [0.3, 4.0], ids=["level", "spread"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [7, 203, 1_024, 32_000, 32_001])
def test_choices_equal_the_definition(
    choosers: dict[int, Choose], size: int, settings: dict[str, Any], spread: float
) -> None:
    num_rows = 200 if size < 10_000 else 30
    logits = (spread * np.random.default_rng(size).standard_normal((num_rows, size))).astype(np.float32)
    tokens, expected = compare(choosers[size], logits, settings)
    # A uniform number within rounding of the border of two tokens may pick either.
    assert (tokens != expected).sum() <= 1
    one, expected_one = compare(choosers[size], logits[:1], settings)
    assert one == expected_one


@pytest.mark.parametrize("size", [7, 203, 32_001])
@pytest.mark.parametrize("num_texts", [1, 3, 20])
def test_choices_from_the_logits_of_the_last_pass_equal_the_definition(
    engines: dict[int, CpuEngine], size: int, num_texts: int
) -> None:
    engine, random, num_wrong = engines[size], np.random.default_rng(size + num_texts), 0
    seen = random.random((num_texts, size)) < 0.3
    slots = engine.open(num_texts)
    engine.read(slots, random.integers(0, size, (num_texts, 2)))
    for settings in SETTINGS:
        config, uniforms = SamplingConfig(**{"temperature": 1.0, **settings}), random.random(num_texts)
        logits = engine.read(slots, random.integers(0, size, (num_texts, 1)))
        tokens, log_probabilities = engine.choose(logits, seen, uniforms, config)
        num_wrong += int((tokens != sampling.choose(logits, seen, uniforms, config)).sum())
        expected = sampling.log_probability(logits, tokens)
        np.testing.assert_allclose(log_probabilities, expected, rtol=1e-6, atol=1e-5)
    assert num_wrong <= 1
    engine.close(slots)
    with pytest.raises(ValueError, match="read-only"):
        logits[0, 0] = 0


@pytest.mark.parametrize("num_texts", [1, 3, 20])
def test_logits_of_a_damaged_model_raise(compiled_kernels: Callable[[WeightsKind], Kernels], num_texts: int) -> None:
    config = ModelConfig(vocab_size=203, hidden_size=8, num_layers=1, num_heads=1, num_kv_heads=1)
    model = Transformer(config)
    model.model.embed_tokens.weight.data[202] = np.nan
    tensors = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    engine = CpuEngine(config, PackedWeights(config, tensors, "fp32"), compiled_kernels("fp32"), 2)
    seen, settings = np.zeros((num_texts, 203), np.bool_), SamplingConfig()
    slots = engine.open(num_texts)
    engine.read(slots, np.random.default_rng(0).integers(0, 200, (num_texts, 2)))
    for _ in range(2):
        logits = engine.read(slots, np.arange(num_texts)[:, None])
        with pytest.raises(FormatError, match="not finite"):
            engine.choose(logits, seen, np.full(num_texts, 0.5), settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_ties_go_to_the_same_tokens(choosers: dict[int, Choose], settings: dict[str, Any]) -> None:
    logits = np.random.default_rng(0).standard_normal((200, 1_024)).astype(np.float32).round(1)
    logits[0] = 0
    tokens, expected = compare(choosers[1_024], logits, settings)
    assert (tokens != expected).sum() <= 1


@pytest.mark.parametrize("top_p", [1e-12, 4.8e-7, 1e-5])
def test_neighbouring_floats_as_thresholds(choosers: dict[int, Choose], top_p: float) -> None:
    """Weights that differ in the last bit: the bisection must end at the exact one."""
    steps = np.random.default_rng(0).integers(0, 12, (200, 203))
    tokens, expected = compare(choosers[203], (-steps * np.float32(2**-24)).astype(np.float32), {"top_p": top_p})
    assert (tokens != expected).sum() <= 1


def test_top_p_keeps_the_first_ties_that_sum_to_it(choosers: dict[int, Choose]) -> None:
    logits = np.full((1, 203), -1000, np.float32)
    logits[0, :8] = 0
    config, none = SamplingConfig(temperature=1, top_p=0.5), np.zeros((1, 203), bool)
    tokens, _ = choosers[203](logits, none, np.array([np.nextafter(1, 0)]), config)
    assert tokens == sampling.choose(logits, none, np.array([np.nextafter(1, 0)]), config) == 3


@given(seed=st.integers(0, 10_000), top_k=st.integers(0, 203), top_p=st.floats(0.01, 1), min_p=st.floats(0, 0.5))
def test_any_settings(choosers: dict[int, Choose], seed: int, top_k: int, top_p: float, min_p: float) -> None:
    logits = np.random.default_rng(seed).standard_normal((20, 203)).astype(np.float32)
    tokens, expected = compare(choosers[203], logits, {"top_k": top_k, "top_p": top_p, "min_p": min_p}, seed)
    assert (tokens != expected).sum() <= 1


@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_that_are_not_finite_raise_once(choosers: dict[int, Choose], odd: float, batch: int) -> None:
    logits = np.random.default_rng(0).standard_normal((batch, 203)).astype(np.float32)
    damaged = logits.copy()
    damaged[-1, 200] = odd
    with pytest.raises(FormatError, match="not finite: its weights are damaged"):
        choose_any(choosers[203], damaged)
    choose_any(choosers[203], logits)


def choose_any(choose: Choose, logits: npt.NDArray[np.float32]) -> None:
    choose(logits, np.zeros(logits.shape, bool), np.full(len(logits), 0.5), SamplingConfig(temperature=1))


def test_extreme_numbers(choosers: dict[int, Choose]) -> None:
    """Logits whose weights underflow, and the largest uniform number."""
    choose, none = choosers[203], np.zeros((2, 203), bool)
    logits = np.full((2, 203), np.finfo(np.float32).min)
    logits[0, 100], logits[1, 202] = np.finfo(np.float32).max, 80
    for settings in SETTINGS:
        config = SamplingConfig(**{"temperature": 1.0, **settings, "repetition_penalty": 1})
        tokens, _ = choose(logits, none, np.array([0.0, np.nextafter(1, 0)]), config)
        assert tokens.tolist() == [100, 202]
    level = np.zeros((2, 203), np.float32)
    tokens, log_probabilities = choose(level, none, np.array([0.0, np.nextafter(1, 0)]), SamplingConfig())
    assert tokens.tolist() == [0, 202]
    np.testing.assert_allclose(log_probabilities, -np.log(203), rtol=1e-6)


def test_an_overflowing_penalty_stays_finite(choosers: dict[int, Choose]) -> None:
    logits = np.random.default_rng(0).standard_normal((20, 203)).astype(np.float32)
    for penalty in (1e38, 1e-38):
        for temperature in (0, 1):
            settings = {"repetition_penalty": penalty, "temperature": temperature}
            tokens, expected = compare(choosers[203], 10 * logits, settings)
            assert (tokens == expected).all()


def test_memory_after_a_row_is_not_read(choosers: dict[int, Choose]) -> None:
    memory = np.full((3, 203), np.nan, np.float32)
    memory[1] = np.random.default_rng(0).standard_normal(203)
    for settings in SETTINGS:
        tokens, expected = compare(choosers[203], memory[1:2], settings)
        assert tokens == expected
