"""Texts that take turns on one engine are, to the last bit, the texts that they are alone."""

import gc
import threading
import time
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch

from tinyllm.config import WeightsKind
from tinyllm.errors import FormatError
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.generation.engines.protocol import Logits, Tokens
from tinyllm.generation.generator import Generator
from tinyllm.generation.turns import FairLock
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.loading import load_with_torch
from tinyllm.model_dir import open_tensors

PROMPT = "Once upon a time the fox"


@pytest.fixture(params=["torch float32", "torch bfloat16", "cpu fp32", "cpu int8"])
def generator(
    request: pytest.FixtureRequest,
    make_model_dir: Callable[..., Path],
    compiled_kernels: Callable[[WeightsKind], Kernels],
) -> Generator:
    """A model with a context of 32 tokens, in each engine."""
    engine, precision = request.param.split()
    path = make_model_dir()
    loaded = load_with_torch(path, device="cpu", dtype=precision if engine == "torch" else "float32")
    if engine == "torch":
        return loaded
    weights = PackedWeights(loaded.config, open_tensors(path), precision)
    cpu_engine = CpuEngine(loaded.config, weights, compiled_kernels(precision), num_threads=2)
    return Generator(cpu_engine, loaded.tokenizer, loaded.config, path)


def test_streams_of_one_thread_alternate(generator: Generator) -> None:
    """40 tokens after 12 slide the window once; between two pieces other calls use the engine in other sizes."""
    settings: dict[str, Any] = {"max_new_tokens": 40, "temperature": 0.9}
    alone = [generator.generate(PROMPT, seed=1, **settings)[0], generator.generate("the red", seed=2, **settings)[0]]
    three = generator.generate("a bear", num_samples=3, max_new_tokens=4)
    streams = [generator.stream(PROMPT, seed=1, **settings), generator.stream("the red", seed=2, **settings)]
    for _ in zip_longest(*streams):
        assert [one.text for one in generator.generate("a bear", num_samples=3, max_new_tokens=4)] == [
            one.text for one in three
        ]
    for stream, expected in zip(streams, alone, strict=True):
        assert stream.generation.token_ids == expected.token_ids
        assert stream.generation.log_probabilities == expected.log_probabilities
        assert stream.generation.text == expected.text


def test_a_stream_that_is_given_up_blocks_nobody_and_keeps_no_memory(generator: Generator) -> None:
    expected = generator.generate("a bear", temperature=0, max_new_tokens=20)[0].token_ids
    stream = generator.stream(PROMPT, max_new_tokens=20)
    next(stream)
    results: list[list[int]] = []

    def generate() -> None:
        results.append(generator.generate("a bear", temperature=0, max_new_tokens=20)[0].token_ids)

    thread = threading.Thread(target=generate)
    thread.start()
    thread.join(timeout=60)
    assert results == [expected]
    (slot,) = stream._batch.slots.values()
    assert generator.engine.length(slot) > 0
    del stream
    gc.collect()
    generator.generate("a bear", max_new_tokens=1)
    assert generator.engine.open(1) == [0], "the slot of a stream that is gone is free, and so are all others"


def test_a_stream_reads_its_prompt_once(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many other texts use the engine between two pieces."""
    num_read: list[int] = []
    read = generator.engine.read

    def count(slots: Sequence[int], tokens: Sequence[Tokens]) -> Logits:
        num_read.extend(len(text) for text in tokens)
        return read(slots, tokens)

    prompts = [PROMPT, "the red ball"]
    lengths = [len(generator.tokenizer.encode(prompt, bos=True)) for prompt in prompts]
    monkeypatch.setattr(generator.engine, "read", count)
    streams = [generator.stream(prompt, max_new_tokens=8, seed=1) for prompt in prompts]
    for _ in zip_longest(*streams):
        pass
    assert sorted(count for count in num_read if count > 1) == sorted(lengths)


def test_threads_get_the_lock_in_the_order_in_which_they_asked() -> None:
    lock, order = FairLock(), []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    with lock:
        for number, thread in enumerate(threads):
            thread.start()
            while len(lock._waiting) <= number:
                time.sleep(0.001)
    for number in range(3):
        take(100 + number)
    for thread in threads:
        thread.join(timeout=60)
    assert order == [*range(8), 100, 101, 102]


def test_an_interrupted_wait_passes_the_lock_on() -> None:
    lock, gate = FairLock(), threading.Lock()
    with lock:
        lock._waiting.append(gate)
        lock._give_up(gate)  # interrupted before the lock came
        assert not lock._waiting
    assert not lock._is_held
    with lock:
        lock._give_up(gate)  # interrupted after it came: this gives the lock up
        assert not lock._is_held
        lock._is_held = True


def test_an_error_inside_a_turn_frees_the_engine(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = generator.generate(PROMPT, temperature=0, max_new_tokens=9)[0].token_ids
    stream = generator.stream(PROMPT, temperature=0, max_new_tokens=9)
    next(stream)

    def refuse(*_: object) -> None:
        raise FormatError("the model gives logits that are not finite")

    with monkeypatch.context() as patch:
        patch.setattr(generator.engine, "read", refuse)
        with pytest.raises(FormatError):
            generator.generate("a bear")
    assert stream.generation.token_ids == expected
    assert generator.generate(PROMPT, temperature=0, max_new_tokens=9)[0].token_ids == expected


def test_a_batch_too_large_for_memory_leaves_the_engine_usable(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generator.generate(PROMPT, temperature=0, max_new_tokens=9)[0].token_ids

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("tinyllm.generation.engines.cpu_engine.aligned_zeros", refuse)
        patch.setattr(torch, "zeros", refuse)
        with pytest.raises(MemoryError):
            generator.generate(PROMPT, num_samples=3)
    assert generator.generate(PROMPT, temperature=0, max_new_tokens=9)[0].token_ids == expected


def test_one_stream_may_be_read_by_several_threads(generator: Generator) -> None:
    expected = generator.generate(PROMPT, seed=5, max_new_tokens=40)[0]
    stream = generator.stream(PROMPT, seed=5, max_new_tokens=40)
    pieces: list[str] = []

    def read() -> None:
        pieces.extend(stream)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted("".join(pieces)) == sorted(expected.text)
    assert stream.generation.token_ids == expected.token_ids
