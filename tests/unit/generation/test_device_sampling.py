"""Sampling on the device against its definition: the same tokens for the same uniform numbers."""

from typing import Any

import numpy as np
import pytest
import torch

from tinyllm.config import SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.device_sampling import Rules
from tinyllm.generation.engines.protocol import Doubles, Logits, Mask, Tokens

VOCABULARY, NUM_ROWS = 203, 200
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
    ),
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 0.7},
    {"temperature": 1e-40},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 1000},
    {"top_p": 0.8},
    {"top_p": 1e-9},
    {"min_p": 0.1},
    {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.5, "temperature": 0},
    {"presence_penalty": 0.7, "frequency_penalty": -0.4},
    {"logit_bias": ((3, 5.0), (7, -100.0))},
    {"logit_bias": ((3, 1.5),), "repetition_penalty": 1.2, "frequency_penalty": 0.9, "top_p": 0.7},
]


def defined(
    logits: Logits, seen: Mask, generated: list[list[int]], uniforms: Doubles, config: SamplingConfig
) -> tuple[Tokens, Doubles]:
    """Tokens and log-probabilities by the definition."""
    adjusted, rest = logits, config
    if sampling.has_adjustments(config):
        adjusted = sampling.adjust(logits, seen, generated, config)
        rest = config.model_copy(update={"repetition_penalty": 1.0})
    tokens = sampling.choose(adjusted, seen, uniforms, rest)
    return tokens, sampling.log_probability(logits, tokens)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("has_ties", [False, True])
def test_tokens_are_those_of_the_definition(settings: dict[str, Any], has_ties: bool, device: str) -> None:
    random = np.random.default_rng(1)
    logits: Logits = (3 * random.standard_normal((NUM_ROWS, VOCABULARY))).astype(np.float32)
    if has_ties:
        logits = logits.round()
    seen = random.random((NUM_ROWS, VOCABULARY)) < 0.2
    generated = [random.integers(0, VOCABULARY, 30).tolist() for _ in range(NUM_ROWS)]
    uniforms = random.random(NUM_ROWS)
    uniforms[:2] = 0, np.nextafter(1, 0)
    config = SamplingConfig(**settings)
    expected, expected_log_probabilities = defined(logits, seen, generated, uniforms, config)

    counts = np.stack([np.bincount(text, minlength=VOCABULARY) for text in generated]).astype(np.int32)
    rules = Rules(config, VOCABULARY, torch.device(device))
    tokens, log_probabilities = rules.choose(
        torch.from_numpy(logits).to(device),
        torch.from_numpy(seen).to(device) if rules.uses_seen else None,
        torch.from_numpy(counts).to(device) if rules.uses_counts else None,
        torch.from_numpy(uniforms).to(device),
    )
    assert tokens.tolist() == expected.tolist()
    np.testing.assert_allclose(log_probabilities.cpu().numpy(), expected_log_probabilities, rtol=0, atol=2e-6)
