"""The scheduler against `Generator.generate`: each text is the one that it is alone, whatever runs beside it.

Most tests steer the scheduler from `hand_over`, which it calls after every step: the steps are the same in every run.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from tinyllm.config import SamplingConfig, WeightsKind
from tinyllm.errors import ConfigError, FormatError, InputError, QueueFullError, ResourceError, ShuttingDownError
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.generation.engines.protocol import Logits, Tokens
from tinyllm.generation.generator import Generator
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.loading import load_with_torch
from tinyllm.model_dir import open_tensors
from tinyllm.serving import batching
from tinyllm.serving.metrics import Metrics
from tinyllm.serving.request import News, Observer, Step, TextRequest, Ticket, TokenLogprob
from tinyllm.serving.scheduler import Scheduler
from tinyllm.serving.slots import FEWEST_SHARED_TOKENS, NUM_KEPT

CONTEXT, VOCABULARY = 64, 320
PATIENCE_SECONDS = 120.0
MakeGenerator = Callable[..., Generator]


@pytest.fixture
def make_generator(
    make_model_dir: Callable[..., Path], compiled_kernels: Callable[[WeightsKind], Kernels]
) -> MakeGenerator:
    def make(kind: WeightsKind = "fp32") -> Generator:
        path = make_model_dir(context_length=CONTEXT)
        loaded = load_with_torch(path, device="cpu")
        weights = PackedWeights(loaded.config, open_tensors(path), kind)
        engine = CpuEngine(loaded.config, weights, compiled_kernels(kind), num_threads=2)
        return Generator(engine, loaded.tokenizer, loaded.config, path)

    return make


@pytest.fixture
def generator(make_generator: MakeGenerator) -> Generator:
    return make_generator()


class Counts(Observer):
    """Adds up what the scheduler measures."""

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.num_prompt = self.num_reused = self.num_admitted = self.num_first = 0
        self.ended_lengths: list[int] = []

    def admitted(self, queue_seconds: float) -> None:
        assert queue_seconds >= 0
        self.num_admitted += 1

    def first_token(self, seconds: float) -> None:
        assert seconds > 0
        self.num_first += 1

    def step(self, num_read: int, num_prompt: int, num_generated: int, num_reused: int, seconds: float) -> None:
        assert seconds > 0
        self.num_prompt += num_prompt
        self.reads.append(num_read)
        self.num_reused += num_reused

    def ended(self, num_tokens: int, seconds_per_token: float | None) -> None:
        assert (seconds_per_token is None) == (num_tokens < 2)
        self.ended_lengths.append(num_tokens)


class Client:
    """Submits requests, keeps their news by number, and runs one action after each step of the scheduler."""

    def __init__(self, generator: Generator, *, max_slots: int = 4, max_queue: int = 100) -> None:
        self.generator, self.counts = generator, Counts()
        self.news: dict[int, list[Step]] = defaultdict(list)
        self.errors: dict[int, Exception] = {}
        self.tickets: list[Ticket] = []
        self.calls: list[list[int]] = []
        """The numbers of the texts with news after each step."""
        self.after_step: Callable[[int], None] = lambda step: None
        self.scheduler = Scheduler(
            generator, max_slots=max_slots, max_queue=max_queue, observer=self.counts, hand_over=self.hand_over
        )

    def submit(self, *requests: TextRequest) -> int:
        """Submits a group; returns the number of its first text."""
        first = len(self.tickets)
        ticket = self.scheduler.submit_group(requests, lambda index, news: self.take(first + index, news))
        self.tickets += [ticket] * len(requests)
        return first

    def take(self, number: int, news: Step | Exception) -> None:
        assert not self.has_ended(number), "the end is the last news"
        self.calls[-1].append(number)
        if isinstance(news, Exception):
            self.errors[number] = news
        else:
            self.news[number].append(news)

    def has_ended(self, number: int) -> bool:
        return number in self.errors or any(step.finish_reason for step in self.news[number])

    def hand_over(self, news: list[News]) -> None:
        self.calls.append([])
        for deliver, index, step in news:
            deliver(index, step)
        self.after_step(len(self.calls))

    def run(self, actions: Mapping[int, Callable[[], object]] = MappingProxyType({})) -> None:
        """Runs until every text has ended; does `actions[step]` after that step, counted from 1."""
        done = threading.Event()

        def act(step: int) -> None:
            if step in actions:
                actions[step]()
            if step >= max(actions, default=0):
                done.set()

        self.after_step = act
        self.scheduler.start()
        assert done.wait(PATIENCE_SECONDS)
        assert self.scheduler.drain(PATIENCE_SECONDS)

    def ids(self, number: int) -> list[int]:
        return [token.id for step in self.news[number] for token in step.tokens]


def random_request(random: np.random.Generator, beginnings: Sequence[Sequence[int]]) -> TextRequest:
    """A prompt that often begins as others do, with settings of every kind."""
    beginning = list(beginnings[int(random.integers(len(beginnings)))])[: random.integers(1, 50)]
    prompt = [1, *beginning, *random.integers(3, VOCABULARY, random.integers(0, 12)).tolist()]
    kinds: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 0.9},
        {"temperature": 0.9, "top_k": 20, "top_p": 0.9},
        {"temperature": 0, "repetition_penalty": 1.3},
        {"presence_penalty": 1.1, "frequency_penalty": 0.4, "repetition_penalty": 1.2},
        {"temperature": 1.2, "min_p": 0.05, "logit_bias": {290: 3.0, 300: -100}},
    ]
    settings = kinds[random.integers(len(kinds))]
    sampling = SamplingConfig.model_validate(
        {
            "max_new_tokens": int(random.integers(1, 90)),
            "seed": int(random.integers(3)),
            "stop": ("ox", "e b") if random.random() < 0.3 else (),
            **settings,
        }
    )
    return TextRequest(tuple(prompt), sampling, sample=int(random.integers(3)))


def check_equal_to_alone(client: Client, number: int, request: TextRequest) -> bool:
    """Compares a text with that of `generate`; a cancelled one with its beginning. Returns whether its window slid."""
    count = request.sample + 1
    alone = client.generator.generate(request.prompt_ids, num_samples=count, sampling=request.sampling)[-1]
    steps = client.news[number]
    tokens = [token for step in steps for token in step.tokens]
    if client.tickets[number].is_cancelled:
        assert [token.id for token in tokens] == alone.token_ids[: len(tokens)]
        assert alone.text.startswith("".join(step.text for step in steps))
        return False
    assert [token.id for token in tokens] == alone.token_ids
    assert [token.log_probability for token in tokens] == alone.log_probabilities
    assert "".join(step.text for step in steps) == alone.text
    assert [step.finish_reason for step in steps] == [None] * (len(steps) - 1) + [alone.finish_reason]
    return alone.slid


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_texts_that_join_leave_share_slide_and_are_cancelled_equal_those_alone(
    make_generator: MakeGenerator, kind: WeightsKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 requests of six kinds of settings come at random steps; 12 slots are fewer than they need."""
    monkeypatch.setattr(batching, "PROMPT_TOKENS_A_STEP", 24)
    client, random = Client(make_generator(kind), max_slots=12), np.random.default_rng(7)
    beginnings = [random.integers(3, VOCABULARY, 50).tolist() for _ in range(3)]
    requests = [random_request(random, beginnings) for _ in range(80)]

    def join_and_leave(step: int) -> None:
        while len(client.tickets) < len(requests) and (random.random() < 0.6 or step < 5):
            client.submit(requests[len(client.tickets)])
        if step % 9 == 0:
            client.scheduler.cancel(client.tickets[int(random.integers(len(client.tickets)))])
        if len(client.tickets) == len(requests):
            everyone.set()

    everyone = threading.Event()
    client.after_step = join_and_leave
    client.submit(requests[0])
    client.scheduler.start()
    assert everyone.wait(PATIENCE_SECONDS)
    assert client.scheduler.drain(PATIENCE_SECONDS)
    assert not client.errors
    slid = [check_equal_to_alone(client, number, request) for number, request in enumerate(requests)]
    num_cancelled = sum(ticket.is_cancelled for ticket in client.tickets)
    assert (sum(slid) > 5, num_cancelled > 5, client.counts.num_reused > 500) == (True,) * 3
    assert max(map(len, client.calls)) > 8
    assert client.generator.engine.open(1) == [0], "every slot is closed"


def greedy(prompt: Sequence[int], max_new_tokens: int = 5, **fields: Any) -> TextRequest:
    return TextRequest(tuple(prompt), SamplingConfig(max_new_tokens=max_new_tokens, temperature=0), **fields)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return [1, *np.random.default_rng(seed).integers(3, VOCABULARY, length - 1).tolist()]


def test_samples_of_one_prompt_read_it_once_and_are_those_of_generate(generator: Generator) -> None:
    client, prompt = Client(generator, max_slots=8), prompt_of(40)
    sampling = SamplingConfig(max_new_tokens=6, seed=5)
    client.submit(*(TextRequest(tuple(prompt), sampling, sample=sample) for sample in range(6)))
    client.run()
    expected = generator.generate(prompt, num_samples=6, sampling=sampling)
    assert [client.ids(number) for number in range(6)] == [each.token_ids for each in expected]
    num_fed_back = sum(len(each.token_ids) - 1 for each in expected)
    assert sum(client.counts.reads) == 40 + 5 + num_fed_back, "five copies read the last token of the prompt alone"
    assert client.counts.num_reused == 5 * 39
    assert (client.counts.num_admitted, client.counts.num_first) == (6, 6)
    assert sorted(client.counts.ended_lengths) == sorted(len(each.token_ids) for each in expected)


def test_the_torch_engine_is_scheduled_too(make_model_dir: Callable[..., Path]) -> None:
    generator = load_with_torch(make_model_dir(context_length=CONTEXT), device="cpu")
    client, shared = Client(generator, max_slots=5), prompt_of(30)
    requests = [greedy([*shared[: 10 + 2 * number], 5 + number], 4 * number + 1) for number in range(11)]
    for request in requests:
        client.submit(request)
    client.run({4: lambda: client.scheduler.cancel(client.tickets[2])})
    for number, request in enumerate(requests):
        if number != 2:
            expected = generator.generate(request.prompt_ids, sampling=request.sampling)[0]
            assert client.ids(number) == expected.token_ids
    assert client.counts.num_reused > 100
    assert generator.engine.open(1) == [0]


def test_a_text_that_comes_after_the_last_one_was_cancelled_is_served(generator: Generator) -> None:
    client, later = Client(generator), greedy([1, 3], 3)
    client.submit(greedy([1, 2], 10**6))
    empty = threading.Event()

    def act(step: int) -> None:
        if step == 3:
            client.scheduler.cancel(client.tickets[0])
        elif client.scheduler.stats().num_running == 0:
            empty.set()

    client.after_step = act
    client.scheduler.start()
    assert empty.wait(PATIENCE_SECONDS)
    client.submit(later)
    assert client.scheduler.drain(PATIENCE_SECONDS)
    assert not client.errors
    check_equal_to_alone(client, 1, later)


def test_a_beginning_that_is_being_read_is_waited_for(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second text has 38 tokens in common with the first, which reads 10 in each step."""
    monkeypatch.setattr(batching, "PROMPT_TOKENS_A_STEP", 10)
    client, first = Client(generator), greedy(prompt_of(45), 9)
    second = greedy([*first.prompt_ids[:38], *prompt_of(5, seed=1)], 9)
    client.submit(first)
    client.run({1: lambda: client.submit(second)})
    assert client.counts.reads[:6] == [10, 10, 10, 10, 5 + 5, 1 + 1]
    assert client.counts.num_reused == 38
    for number, request in enumerate((first, second)):
        check_equal_to_alone(client, number, request)


def test_a_text_goes_on_if_the_one_that_reads_its_beginning_is_cancelled(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PROMPT_TOKENS_A_STEP", 10)
    client, request = Client(generator), greedy(prompt_of(45))
    for _ in range(2):
        client.submit(request)
    client.run({2: lambda: client.scheduler.cancel(client.tickets[0])})
    assert client.ids(0) == []
    assert client.counts.num_reused == 20, "the tokens that were read remain"
    check_equal_to_alone(client, 1, request)


def test_the_next_turn_of_a_chat_reads_only_what_is_new(generator: Generator) -> None:
    client, prompt = Client(generator, max_slots=1), prompt_of(30)
    client.submit(greedy(prompt, 8))

    def answer(step: int) -> None:
        if len(client.tickets) == 1 and client.has_ended(0):
            client.submit(greedy([*prompt, *client.ids(0), *prompt_of(4, seed=2)[1:]]))
            done.set()

    done = threading.Event()
    client.after_step = answer
    client.scheduler.start()
    assert done.wait(PATIENCE_SECONDS)
    assert client.scheduler.drain(PATIENCE_SECONDS)
    assert client.counts.num_reused == 30 + 7, "the last token of the answer was drawn and not read"
    assert client.counts.reads[8] == 1 + 3


def test_only_a_few_slots_are_kept_and_the_least_recently_used_leaves(generator: Generator) -> None:
    """The first prompt is used again and again, so the second is the one that leaves when one too many comes."""
    client = Client(generator, max_slots=1)
    prompts = [prompt_of(20, seed=seed) for seed in range(NUM_KEPT + 2)]
    order = [0, 1, 0, *range(2, NUM_KEPT + 1), 0, NUM_KEPT + 1, 0, 1]
    client.submit(*(greedy(prompts[number], 1) for number in order))
    client.run()
    reads = [20 if first else 1 for first in (order.index(number) == place for place, number in enumerate(order))]
    assert client.counts.reads == [*reads[:-1], 20]


def test_a_short_common_beginning_is_read_again(generator: Generator) -> None:
    client, prompt = Client(generator), prompt_of(FEWEST_SHARED_TOKENS - 1)
    client.submit(greedy([*prompt, 5]), greedy([*prompt, 6]))
    client.run()
    assert client.counts.num_reused == 0
    assert client.counts.reads[0] == 2 * FEWEST_SHARED_TOKENS


def test_a_long_prompt_is_read_beside_a_text_that_goes_on(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PROMPT_TOKENS_A_STEP", 10)
    client, long = Client(generator), greedy(prompt_of(60, seed=1), 3)
    client.submit(greedy([1, 2], 20))
    client.run({3: lambda: client.submit(long)})
    assert client.calls[3:10] == [[0]] * 5 + [[0, 1]] * 2
    check_equal_to_alone(client, 1, long)


def test_first_come_first_served(generator: Generator) -> None:
    client = Client(generator, max_slots=2)
    for seed in range(6):
        client.submit(greedy(prompt_of(5, seed), 4))
    client.run()
    assert client.calls == [[0, 1]] * 4 + [[2, 3]] * 4 + [[4, 5]] * 4


def test_the_queue_is_bounded_and_takes_a_group_whole_or_not(generator: Generator) -> None:
    client = Client(generator, max_slots=2, max_queue=3)
    client.submit(*[greedy([1, 2])] * 4)
    with pytest.raises(QueueFullError, match="all slots are in use and the queue is full; try again in 1 s") as full:
        client.submit(*[greedy([1, 2])] * 2)
    assert full.value.retry_after_seconds == 1
    with pytest.raises(InputError, match="6 texts are asked for at once; at most 5 fit in the queue"):
        client.submit(*[greedy([1, 2])] * 6)
    client.submit(greedy([1, 2]))
    assert (client.scheduler.stats().num_waiting, client.scheduler.stats().num_slots) == (5, 2)
    client.run()
    assert all(client.has_ended(number) for number in range(5))
    stats = client.scheduler.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_generated) == (0, 0, 5 * 5)
    assert (stats.num_read, stats.num_reused) == (sum(client.counts.reads), 0)


def test_cancelled_texts_leave_at_once_and_the_next_takes_the_place(generator: Generator) -> None:
    """Tickets 1 and 2 wait behind the only slot."""
    client = Client(generator, max_slots=1)
    for _ in range(4):
        client.submit(greedy([1, 2], 50))

    def cancel() -> None:
        for ticket in (client.tickets[0], client.tickets[2]):
            client.scheduler.cancel(ticket)

    client.run({3: cancel})
    assert client.calls == [[0]] * 3 + [[1]] * 50 + [[3]] * 50
    assert not client.errors


def test_texts_of_a_cancelled_group_all_leave(generator: Generator) -> None:
    client = Client(generator, max_slots=2)
    client.submit(*[greedy([1, 2], 50)] * 5)
    client.run({2: lambda: client.scheduler.cancel(client.tickets[0])})
    assert client.calls[:2] == [[0, 1]] * 2
    assert sum(map(len, client.calls)) == 4


def test_news_of_one_step_come_together_and_name_likely_tokens(generator: Generator) -> None:
    client, prompt = Client(generator), prompt_of(20)
    client.submit(greedy(prompt, 4, top_logprobs=3), greedy(prompt, 4))
    client.run()
    logits = generator.logits([*prompt, *client.ids(0)]).astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for place, step in enumerate(client.news[0]):
        (token,) = step.tokens
        row = expected[len(prompt) - 1 + place]
        assert [id for id, _ in token.top] == np.argsort(-row)[:3].tolist()
        np.testing.assert_allclose([number for _, number in token.top], np.sort(row)[::-1][:3], atol=1e-5)
        assert token.top[0] == (token.id, token.log_probability), "the likeliest token is the one drawn"
    assert all(token.top == () for step in client.news[1] for token in step.tokens)


def test_the_prompt_is_scored_as_by_score(generator: Generator) -> None:
    client, text = Client(generator), "Once upon a time the fox"
    ids = generator.tokenizer.encode(text, bos=True)
    client.submit(greedy(ids, prompt_logprobs=True, top_logprobs=2), greedy([1], prompt_logprobs=True))
    client.run()
    first, *others = client.news[0]
    assert first.prompt is not None
    none, *scored = first.prompt
    assert none is None
    tokens = [token for token in scored if isinstance(token, TokenLogprob)]
    assert [token.id for token in tokens] == ids[1:]
    expected = generator.score(text).log_probabilities
    np.testing.assert_allclose([token.log_probability for token in tokens], expected, atol=1e-6)
    best = generator.logits(ids)[:-1].argmax(axis=1)
    assert [token.top[0][0] for token in tokens] == best.tolist()
    assert all(step.prompt is None for step in others)
    assert client.news[1][0].prompt == (None,)


def test_a_prompt_is_scored_once_for_all_samples_in_pieces_beside_a_text_that_goes_on(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PROMPT_TOKENS_A_STEP", 10)
    pieces: list[int] = []
    engine = Faulty(generator.engine, lambda slots, tokens, logits: logits)

    def read_each(slot: int, tokens: Tokens) -> Logits:
        pieces.append(len(tokens))
        return generator.engine.read_each(slot, tokens)

    engine.read_each = read_each  # type: ignore[attr-defined]
    monkeypatch.setattr(generator.engine, "read_logits", lambda texts: pytest.fail("a prompt is read whole"))
    client = Client(Generator(engine, generator.tokenizer, generator.config), max_slots=2)  # type: ignore[arg-type]
    ids = prompt_of(41)
    other = client.submit(greedy([1], 12))
    samples = [greedy(ids, prompt_logprobs=True, top_logprobs=2, sample=number) for number in range(4)]
    client.submit(*samples)
    client.run()
    assert pieces == [10, 10, 10, 10]
    assert all(other in call for call in client.calls[:12]), "the text goes on at each step"
    scored = {client.news[number][0].prompt for number in range(1, 5)}
    assert len(scored) == 1
    client.generator = generator
    monkeypatch.undo()
    logits = generator.logits(ids).astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    (tokens,) = scored
    assert tokens is not None
    found = [token.log_probability for token in tokens if token is not None]
    np.testing.assert_allclose(found, expected[np.arange(40), ids[1:]], atol=1e-6)
    for number, request in enumerate([greedy([1], 12), *samples]):
        check_equal_to_alone(client, number, request)


def test_a_prompt_that_cannot_be_scored_ends_its_text_alone(generator: Generator) -> None:
    engine = Faulty(generator.engine, lambda slots, tokens, logits: logits)

    def read_each(slot: int, tokens: Tokens) -> Logits:
        raise MemoryError("Unable to allocate 4.00 GiB for an array")

    engine.read_each = read_each  # type: ignore[attr-defined]
    client = Client(Generator(engine, generator.tokenizer, generator.config))  # type: ignore[arg-type]
    client.submit(greedy([1, 5, 6], prompt_logprobs=True), greedy([1, 5, 6]))
    client.run()
    assert {number: type(error) for number, error in client.errors.items()} == {0: ResourceError}
    client.generator = generator
    check_equal_to_alone(client, 1, greedy([1, 5, 6]))
    assert generator.engine.open(1) == [0]


@pytest.mark.parametrize("is_scored", [False, True])
def test_tokens_of_prompts_are_counted_apart_from_generated_ones(generator: Generator, is_scored: bool) -> None:
    """Also of a text that outgrows the context: what is read again is no prompt."""
    metrics = Metrics()
    client = Client(generator)
    client.scheduler = Scheduler(
        generator, max_slots=4, max_queue=9, observer=metrics.observer("m"), hand_over=client.hand_over
    )
    client.submit(greedy(prompt_of(20), 60, prompt_logprobs=is_scored), greedy([1, 5], 10))
    client.run()
    text = metrics.expose([]).decode()
    assert 'tinyllm_prompt_tokens_total{model="m"} 22.0' in text
    assert 'tinyllm_generated_tokens_total{model="m"} 70.0' in text


def test_texts_of_equal_settings_are_drawn_together_from_logits_without_a_copy(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds, lengths and stop strings differ, and do not divide a group. The last text has settings of its own."""
    held: list[Logits] = []
    drawn: list[tuple[int, bool]] = []
    choose = generator.engine.choose

    def hold(slots: Sequence[int], tokens: Sequence[Tokens], logits: Logits) -> Logits:
        held.append(logits)
        return logits

    def record(logits: Logits, *arguments: Any) -> tuple[Tokens, Any]:
        assert np.shares_memory(logits, held[-1])
        drawn.append((len(logits), logits is held[-1]))
        return choose(logits, *arguments)

    monkeypatch.setattr(generator.engine, "choose", record)
    client = Client(faulty(generator, hold), max_slots=8)
    for seed in range(4):
        settings = SamplingConfig(seed=seed, max_new_tokens=3 + seed // 3, stop=("x",) * (seed % 2), top_k=9)
        client.submit(TextRequest((1, 5), settings))
    client.submit(TextRequest((1, 6), SamplingConfig(max_new_tokens=2)))
    client.run()
    assert sorted(drawn[:2]) == [(1, False), (4, False)]
    assert drawn[4:] == [(4, True), (1, True)]


class Faulty:
    """An engine whose `read` passes through a function of the test; all else is that of a real engine."""

    def __init__(self, engine: Any, fault: Callable[[Sequence[int], Sequence[Tokens], Logits], Logits]) -> None:
        self._engine, self._fault = engine, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def read(self, slots: Sequence[int], tokens: Sequence[Tokens]) -> Logits:
        return self._fault(slots, tokens, self._engine.read(slots, tokens))


def test_logits_that_are_not_finite_end_their_text_alone(generator: Generator) -> None:
    """The text that reads token 300 gets NaN; sampled texts beside it draw what they draw alone."""

    def fault(slots: Sequence[int], tokens: Sequence[Tokens], logits: Logits) -> Logits:
        logits = logits.copy()
        logits[[300 in text for text in tokens]] = np.nan
        return logits

    client = Client(faulty(generator, fault))
    sampled = TextRequest((1, 5, 6), SamplingConfig(max_new_tokens=30, logit_bias=((300, -100),)))
    client.submit(sampled, TextRequest((1, 300), sampled.sampling), sampled)
    client.run()
    assert list(client.errors) == [1]
    assert isinstance(client.errors[1], FormatError)
    client.generator = generator
    for number in (0, 2):
        check_equal_to_alone(client, number, sampled)


def test_an_error_of_the_engine_ends_its_texts_and_not_the_thread(generator: Generator) -> None:
    def fault(slots: Sequence[int], tokens: Sequence[Tokens], logits: Logits) -> Logits:
        if 300 in tokens[0]:
            raise MemoryError("Unable to allocate 4.00 GiB for an array")
        return logits

    client = Client(faulty(generator, fault), max_slots=2)
    client.submit(greedy([1, 300]), greedy([1, 5]), greedy([1, 6]))
    client.run()
    assert {number: type(error) for number, error in client.errors.items()} == {0: ResourceError, 1: ResourceError}
    assert str(client.errors[0]).startswith("the memory is not enough: 4.00 GiB were asked for at once")
    client.generator = generator
    check_equal_to_alone(client, 2, greedy([1, 6]))
    assert generator.engine.open(1) == [0]


def test_the_death_of_the_thread_is_told_to_every_request(generator: Generator) -> None:
    client = Client(generator, max_slots=1)
    client.submit(greedy([1, 2], 50), greedy([1, 3]))
    failure = RuntimeError("a bug")

    def fail(*_: object) -> None:
        raise failure

    client.after_step = lambda step: setattr(client.counts, "step", fail)
    client.scheduler.start()
    assert not client.scheduler.drain(PATIENCE_SECONDS)
    assert client.errors == {0: failure, 1: failure}
    assert client.scheduler.failure is failure
    with pytest.raises(ShuttingDownError, match="the server is shutting down"):
        client.submit(greedy([1, 2]))
    assert generator.engine.open(1) == [0]


def test_draining_refuses_texts_waits_for_the_others_and_ends_those_that_take_too_long(generator: Generator) -> None:
    client = Client(generator, max_slots=1)
    client.submit(greedy([1, 2], 10**6), greedy([1, 3]))
    started = threading.Event()
    client.after_step = lambda step: started.set()
    client.scheduler.start()
    assert started.wait(PATIENCE_SECONDS)
    assert not client.scheduler.drain(0.2)
    assert {number: str(error) for number, error in client.errors.items()} == {
        0: "the server is shutting down",
        1: "the server is shutting down",
    }
    assert client.scheduler.failure is None
    with pytest.raises(ShuttingDownError):
        client.submit(greedy([1, 2]))


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (greedy([]), InputError, "the prompt has 0 tokens; at least 1 is needed, and the context holds 64"),
        (greedy([1] * 65), InputError, "the prompt has 65 tokens"),
        (greedy([1, 320]), InputError, "token id 320 is out of range"),
        (greedy([1], top_logprobs=321), ConfigError, "top_logprobs is 321; it can be 0 to 320"),
        (TextRequest((1,), SamplingConfig(logit_bias=((320, 1),))), ConfigError, "logit_bias names token 320"),
    ],
)
def test_requests_that_the_model_cannot_take_are_refused(
    generator: Generator, request_: TextRequest, error: type[Exception], message: str
) -> None:
    client = Client(generator)
    with pytest.raises(error, match=message):
        client.submit(greedy([1]), request_)
    assert client.scheduler.stats().num_waiting == 0


def test_slots_that_do_not_fit_into_memory_are_refused(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator.engine, "available_bytes", lambda: 1_000_000)
    with pytest.raises(ResourceError, match=r"max_slots 64 with a context of 64 tokens: .* are needed, 1.0 MB"):
        Client(generator, max_slots=64)


def test_any_thread_may_submit_and_cancel(generator: Generator) -> None:
    """8 threads submit 10 texts each; the scheduler runs by itself."""
    client, lock = Client(generator, max_slots=6), threading.Lock()
    requests: dict[int, TextRequest] = {}

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        beginnings = [prompt_of(40, seed % 2)[1:]]
        for _ in range(10):
            request = random_request(random, beginnings)
            with lock:
                requests[client.submit(request)] = request
            if random.random() < 0.2:
                client.scheduler.cancel(client.tickets[-1])

    client.scheduler.start()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.scheduler.drain(PATIENCE_SECONDS)
    assert len(requests) == 80
    for number, request in requests.items():
        check_equal_to_alone(client, number, request)


def faulty(generator: Generator, fault: Callable[[Sequence[int], Sequence[Tokens], Logits], Logits]) -> Generator:
    engine: Any = Faulty(generator.engine, fault)
    return Generator(engine, generator.tokenizer, generator.config)
