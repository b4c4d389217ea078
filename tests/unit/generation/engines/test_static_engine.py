"""Steps of fixed shape against the plain torch engine: the same tokens, in batches, streams and windows that slide.

On a CPU the steps run without CUDA graphs; the tests marked `gpu` capture them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tinyllm.errors import FormatError
from tinyllm.generation.engines import static_engine
from tinyllm.generation.engines.protocol import ChoosesOnDevice, Logits, Tokens
from tinyllm.generation.engines.static_engine import StaticEngine
from tinyllm.generation.engines.torch_engine import TorchEngine
from tinyllm.generation.generator import Generator
from tinyllm.loading import open_model

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
    ),
]
PROMPTS = ["Once upon a time the fox", "the", "a red ball saw the owl and the bear"]
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0.9, "top_k": 20, "seed": 3},
    {"top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2, "stop": ("a", "ox")},
    {"frequency_penalty": 0.5, "presence_penalty": 0.3, "logit_bias": ((5, 2.0),)},
]


class CountedReads(StaticEngine):
    """Counts the calls whose logits go to the host."""

    num_reads = 0

    def read(self, slots: Sequence[int], tokens: Sequence[Tokens] | Tokens) -> Logits:
        """As that of `StaticEngine`."""
        self.num_reads += 1
        return super().read(slots, tokens)


@pytest.fixture(params=DEVICES)
def generators(request: pytest.FixtureRequest, make_model_dir: Callable[..., Path]) -> tuple[Generator, Generator]:
    """The plain engine and the static one; the context is 32 tokens."""
    device = torch.device(request.param)
    path = make_model_dir()
    plain, tokenizer = open_model(path, None, device)
    static, _ = open_model(path, None, device)
    engines = TorchEngine(plain), CountedReads(static)
    assert [isinstance(engine, ChoosesOnDevice) for engine in engines] == [False, True]
    first, second = (Generator(engine, tokenizer, plain.config) for engine in engines)
    return first, second


def counted(generator: Generator) -> CountedReads:
    assert isinstance(generator.engine, CountedReads)
    return generator.engine


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_batches_are_those_of_the_plain_engine(
    settings: dict[str, Any], generators: tuple[Generator, Generator]
) -> None:
    """Nine texts of different lengths; some end early, others slide their window of 32 tokens."""
    plain, static = (
        generator.generate(PROMPTS, num_samples=3, max_new_tokens=40, **settings) for generator in generators
    )
    assert any(text.slid for text in plain)
    for ours, theirs in zip(static, plain, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert (ours.text, ours.finish_reason, ours.slid) == (theirs.text, theirs.finish_reason, theirs.slid)
        np.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, rtol=0, atol=1e-4)


def test_only_the_prompt_sends_logits_to_the_host(generators: tuple[Generator, Generator]) -> None:
    _, static = generators
    static.generate("the", num_samples=4, max_new_tokens=20, temperature=0.8)
    assert counted(static).num_reads == 1


def test_streams_that_take_turns_do_not_disturb_each_other(
    generators: tuple[Generator, Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that takes no part in a step keeps its text. Steps are few, so that they are made again, too."""
    monkeypatch.setattr(static_engine, "MOST_STEPS", 2)
    monkeypatch.setattr(static_engine, "LEAST_KEYS", 4)
    settings: list[dict[str, Any]] = [{"temperature": 0}, {"top_k": 9}, {"repetition_penalty": 1.5, "temperature": 0}]
    plain, static = generators
    expected = [
        plain.generate(prompt, max_new_tokens=25, **each)[0].token_ids
        for prompt, each in zip(PROMPTS, settings, strict=True)
    ]
    streams = [static.stream(prompt, max_new_tokens=25, **each) for prompt, each in zip(PROMPTS, settings, strict=True)]
    for place in [0, 1, 1, 2, 0, 2, 1] * 2:
        next(streams[place], None)
    assert [stream.generation.token_ids for stream in streams] == expected


def test_logits_that_are_not_finite_are_an_error_and_harm_no_later_text(
    generators: tuple[Generator, Generator],
) -> None:
    plain, static = generators
    expected = plain.generate("the", max_new_tokens=8, temperature=0)[0].token_ids
    token, engine = expected[2], counted(static)
    weight = engine._model.model.embed_tokens.weight
    with torch.no_grad():
        before = weight[token].clone()
        weight[token] = torch.nan
    with pytest.raises(FormatError, match="not finite"):
        static.generate("the", max_new_tokens=8, temperature=0)
    with torch.no_grad():
        weight[token] = before
    assert static.generate("the", max_new_tokens=8, temperature=0)[0].token_ids == expected


@pytest.mark.parametrize(("number", "power"), [(1, 1), (2, 2), (3, 4), (128, 128), (129, 256)])
def test_the_next_power_of_two(number: int, power: int) -> None:
    assert static_engine.power_of_two(number) == power
