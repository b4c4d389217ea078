"""One generator in eight threads: every call gives the text that it gives alone."""

import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from tinyllm.config import WeightsKind
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.generation.generator import Generator
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.loading import load_with_torch
from tinyllm.model_dir import open_tensors

NUM_THREADS = 8
PATIENCE_SECONDS = 1200
PROMPTS = ("Once upon a time", "the fox", "a red ball saw the owl and the bear", "")
Call = dict[str, Any]
Texts = list[tuple[str, list[int], list[float]]]


def calls(count: int) -> list[Call]:
    """`count` calls with different prompts, lengths and numbers of samples: greedy and sampled, whole and streamed."""
    return [
        {
            "prompt": PROMPTS[number % len(PROMPTS)],
            "max_new_tokens": 1 + number * 7 % 45,  # some exceed the context of 32 tokens
            "num_samples": 1 if number % 3 else 1 + number % 5,
            "temperature": number % 2 * 0.9,
            "seed": number,
            "is_stream": number % 3 == 1,
        }
        for number in range(count)
    ]


def answer(generator: Generator, call: Call) -> Texts:
    """The result of a call, with every number."""
    settings = {name: value for name, value in call.items() if name not in ("prompt", "is_stream", "num_samples")}
    if call["is_stream"]:
        stream = generator.stream(call["prompt"], **settings)
        text = "".join(stream)
        results = [stream.generation]
        assert text == results[0].text
    else:
        results = generator.generate(call["prompt"], num_samples=call["num_samples"], **settings)
    return [(result.text, result.token_ids, result.log_probabilities) for result in results]


def answer_in_threads(generator: Generator, work: list[Call]) -> dict[int, Texts | Exception]:
    """The results of the calls from eight threads; each thread starts a stream and leaves it before each call."""
    open_calls: SimpleQueue[int] = SimpleQueue()
    answers: dict[int, Texts | Exception] = {}
    for number in range(len(work)):
        open_calls.put(number)

    def take_calls() -> None:
        half_read: list[Any] = []
        while True:
            try:
                number = open_calls.get_nowait()
            except Empty:
                return
            try:
                half_read = [generator.stream("the bear", seed=number), *half_read[:1]]
                next(half_read[0], "")
                answers[number] = answer(generator, work[number])
            except Exception as error:  # noqa: BLE001 (the test reports it)
                answers[number] = error

    threads = [threading.Thread(target=take_calls, daemon=True) for _ in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "a thread hangs"
    return answers


@pytest.mark.promise("17 texts of one generator in 8 threads: 0 wrong", fast=48, full=1000)
@pytest.mark.parametrize("kind", ["fp32", "int8", None])
def test_every_text_equals_that_of_a_single_thread(
    kind: WeightsKind | None,
    count: int,
    tell: Callable[[str], None],
    make_model_dir: Callable[..., Path],
    compiled_kernels: Callable[[WeightsKind], Kernels],
) -> None:
    path = make_model_dir()
    generator = load_with_torch(path, device="cpu")
    if kind is not None:  # None stands for the torch engine
        weights = PackedWeights(generator.config, open_tensors(path), kind)
        cpu_engine = CpuEngine(generator.config, weights, compiled_kernels(kind), num_threads=2)
        generator = Generator(cpu_engine, generator.tokenizer, generator.config)
    work = calls(count)
    alone = [answer(generator, call) for call in work]
    together = answer_in_threads(generator, work)
    wrong = [number for number in range(count) if together[number] != alone[number]]
    assert len({text for texts in alone for text, _, _ in texts}) > count / 4, "the texts differ"
    assert not wrong, f"{len(wrong)} of {count} wrong, the first: {together[wrong[0]]!r}, not {alone[wrong[0]]!r}"
    tell(f"{kind or 'torch'}: {count} calls, {sum(map(len, alone))} texts in {NUM_THREADS} threads, 0 wrong")
