"""The batch: samples that end leave it, prompts of different lengths run side by side, and all slots are closed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tinyllm.config import SamplingConfig, WeightsKind
from tinyllm.generation.batch import Batch, Sample
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.generation.engines.protocol import Logits, Tokens
from tinyllm.generation.generator import Generator
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.loading import load_with_torch
from tinyllm.model_dir import open_tensors

PROMPTS = ("Once upon a time the fox", "the", "a red ball saw the owl and the bear")
CONFIG = SamplingConfig(max_new_tokens=40, temperature=0.9, stop=("a", "ox"), seed=3, repetition_penalty=1.1)
"""Samples end after 1 to 40 tokens; some slide the window of 32 tokens."""


@pytest.fixture(params=["cpu", "torch"])
def generator(
    request: pytest.FixtureRequest,
    make_model_dir: Callable[..., Path],
    compiled_kernels: Callable[[WeightsKind], Kernels],
) -> Generator:
    """A model with a context of 32 tokens, in each engine."""
    path = make_model_dir()
    loaded = load_with_torch(path, device="cpu")
    if request.param == "torch":
        return loaded
    weights = PackedWeights(loaded.config, open_tensors(path), "fp32")
    engine = CpuEngine(loaded.config, weights, compiled_kernels("fp32"), num_threads=2)
    return Generator(engine, loaded.tokenizer, loaded.config, path)


def run(generator: Generator, prompts: Sequence[str], num_samples: int, config: SamplingConfig = CONFIG) -> Batch:
    ids = [generator.tokenizer.encode(prompt, bos=True) for prompt in prompts]
    batch = Batch(generator.engine, generator.tokenizer, ids, num_samples, config)
    pieces = list(batch.pieces())
    assert ["".join(parts) for parts in zip(*pieces, strict=True)] == [sample.text for sample in batch.samples]
    return batch


def results(samples: Sequence[Sample]) -> list[tuple[str, list[int], str | None]]:
    return [(sample.text, sample.token_ids, sample.finish_reason) for sample in samples]


def test_prompts_of_different_lengths_run_side_by_side(generator: Generator) -> None:
    together = run(generator, PROMPTS, num_samples=4)
    assert {sample.finish_reason for sample in together.samples} >= {"stop", "length"}
    assert len({len(sample.token_ids) for sample in together.samples}) > 4
    for number, prompt in enumerate(PROMPTS):
        expected = run(generator, [prompt], num_samples=4)
        assert results(together.samples[4 * number : 4 * number + 4]) == results(expected.samples)
        assert together.slid[4 * number : 4 * number + 4] == expected.slid
        if isinstance(generator.engine, CpuEngine):
            exact = [sample.log_probabilities for sample in expected.samples]
            assert [sample.log_probabilities for sample in together.samples[4 * number : 4 * number + 4]] == exact


def test_a_sample_that_ended_costs_nothing(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    num_rows: list[int] = []
    read = generator.engine.read

    def count(slots: Sequence[int], tokens: Sequence[Tokens]) -> Logits:
        num_rows.append(len(slots))
        return read(slots, tokens)

    monkeypatch.setattr(generator.engine, "read", count)
    batch = run(generator, PROMPTS[:1], num_samples=6)
    lengths = [len(sample.token_ids) for sample in batch.samples]
    # The first read is the prompt's; read t computes the logits of token t of the samples that are that long.
    expected = [1, *(sum(length > step for length in lengths) for step in range(1, max(lengths)))]
    assert num_rows == expected
    assert min(lengths) < max(lengths)


def test_all_slots_are_closed_at_the_end_and_by_close(generator: Generator) -> None:
    run(generator, PROMPTS, num_samples=2)
    assert generator.engine.open(1) == [0]
    ids = [generator.tokenizer.encode(prompt, bos=True) for prompt in PROMPTS]
    batch = Batch(generator.engine, generator.tokenizer, ids, 2, SamplingConfig(max_new_tokens=9))
    next(batch.pieces())
    assert len(batch.slots) == 6
    batch.close()
    assert not batch.slots
    assert generator.engine.open(6) == [1, 2, 3, 4, 5, 6]
