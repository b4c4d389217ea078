"""Continuous batching: texts join and leave at every step of one engine, which one thread owns.

A step reads one token of each text that is being generated and pieces of new prompts, all in one call of the engine.
Each text whose window is read to its end then gets its next token. First come, first served: a text waits in the queue
until one of the slots is free. The text of a request does not depend on the others: it equals that of `generate`.

    scheduler = Scheduler(generator, max_slots=64, max_queue=256)
    scheduler.start()
    ticket = scheduler.submit(request, deliver)          from any thread; news come after each step
    scheduler.cancel(ticket)
    scheduler.drain(seconds=30)

Shapes: B texts of one step, V vocabulary.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import compress, groupby
from time import perf_counter

import numpy as np

from tinyllm.config import SamplingConfig
from tinyllm.errors import ConfigError, FormatError, InputError, QueueFullError, ShuttingDownError
from tinyllm.generation import sampling
from tinyllm.generation.engines.protocol import Doubles, Logits, Mask, Tokens
from tinyllm.generation.generator import Generator
from tinyllm.generation.token_choice import TokenChoice
from tinyllm.machine.memory import shortages_named
from tinyllm.serving.request import SILENT, Deliver, News, Observer, Stats, Step, TextRequest, Ticket, deliver_all
from tinyllm.serving.slots import Slots
from tinyllm.serving.text import Arrival, Text, prompt_logprobs

PROMPT_TOKENS_A_STEP = 128
"""Tokens of prompts that one step reads beside the texts being generated: more would make those wait longer."""
OLD_SHARE = 0.9
"""Weight of earlier texts in the mean time of a text."""


class Scheduler:
    """Generates texts for any number of callers. Until `drain`, nothing else may use the generator's engine."""

    def __init__(
        self,
        generator: Generator,
        *,
        max_slots: int,
        max_queue: int,
        observer: Observer = SILENT,
        hand_over: Callable[[list[News]], None] = deliver_all,
    ) -> None:
        """At most `max_slots` texts run, and `max_queue` more wait.

        `hand_over` gets all news of a step at once, in the scheduler's thread; it must neither block nor raise. Raises
        ResourceError if the slots do not fit into memory.
        """
        self._tokenizer, self._engine = generator.tokenizer, generator.engine
        self._max_slots, self._max_texts = max_slots, max_slots + max_queue
        self._observer, self._hand_over = observer, hand_over
        self._slots = Slots(self._engine, max_slots)
        self._running: list[Text] = []
        self._waiting: deque[Arrival] = deque()
        self._changed = threading.Condition()
        """Guards `_waiting`, `_num_texts` and the fields of shutting down."""
        self._num_texts = 0
        self._has_cancelled = self._is_draining = self._is_stopping = False
        self._failure: Exception | None = None
        self._num_read = self._num_generated = 0
        self._seconds_per_text = 0.0
        self._none_seen: Mask = np.zeros((max_slots, self._engine.vocab_size), np.bool_)
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, request: TextRequest, deliver: Deliver) -> Ticket:
        """Queues one text; `deliver(0, step)` is called after each of its steps. Raises as `submit_group`."""
        return self.submit_group([request], deliver)

    def submit_group(self, requests: Sequence[TextRequest], deliver: Deliver) -> Ticket:
        """Queues all `requests` or none; `deliver(index, step)` is called after each step of text `index`.

        Raises QueueFullError if there is no room, ShuttingDownError after `drain` or a failure. Raises InputError or
        ConfigError for a request that this model cannot take.
        """
        for request in requests:
            self._check(request)
        if len(requests) > self._max_texts:
            raise InputError(f"{len(requests)} texts are asked for at once; at most {self._max_texts} fit in the queue")
        ticket = Ticket()
        with self._changed:
            if self._failure or self._is_draining:
                raise ShuttingDownError("the server is shutting down") from self._failure
            if self._num_texts + len(requests) > self._max_texts:
                raise QueueFullError("all slots are in use and the queue is full", self._retry_after_seconds())
            self._num_texts += len(requests)
            self._waiting.extend(Arrival(request, index, ticket, deliver) for index, request in enumerate(requests))
            self._changed.notify_all()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends the texts of `ticket` before the next step, without further news. Any thread may call this."""
        ticket.is_cancelled = self._has_cancelled = True

    def drain(self, seconds: float) -> bool:
        """Refuses new texts, and waits up to `seconds` for the others to end; returns whether they all did.

        The rest get a ShuttingDownError. The thread has ended afterwards.
        """
        with self._changed:
            self._is_draining = True
            all_ended = self._changed.wait_for(lambda: self._num_texts == 0, seconds)
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join()
        return all_ended and self._failure is None

    @property
    def failure(self) -> Exception | None:
        """The error that ended the thread; None while all is well."""
        return self._failure

    def stats(self) -> Stats:
        """The state and the counts. Any thread may call this."""
        with self._changed:
            num_running = len(self._running)
            num_waiting = self._num_texts - num_running
        return Stats(
            num_running, num_waiting, self._max_slots, self._num_generated, self._num_read, self._slots.num_reused
        )

    def _check(self, request: TextRequest) -> None:
        ids, limit, vocab_size = request.prompt_ids, self._engine.context_length, self._engine.vocab_size
        if not 1 <= len(ids) <= limit:
            raise InputError(f"the prompt has {len(ids)} tokens; at least 1 is needed, and the context holds {limit}")
        for id in ids:
            self._tokenizer.check_id(id)
        sampling.check_biases(request.sampling, vocab_size)
        if not 0 <= request.top_logprobs <= vocab_size:
            raise ConfigError(f"top_logprobs is {request.top_logprobs}; it can be 0 to {vocab_size}")

    def _retry_after_seconds(self) -> int:
        """A guess at the time until a place is free: texts end evenly."""
        return max(1, math.ceil(self._seconds_per_text / self._max_slots))

    def _run(self) -> None:
        """The life of the thread. Every text gets an end, whatever happens."""
        end: Exception = ShuttingDownError("the server is shutting down")
        try:
            while self._wait_for_texts():
                self._hand_over(self._step())
        except Exception as error:  # noqa: BLE001 (every request is told)
            self._failure = end = error
        finally:
            with self._changed:
                rest = [text.arrival for text in self._running] + list(self._waiting)
                self._waiting.clear()
                self._num_texts = 0
                self._changed.notify_all()
            for text in self._running:
                self._slots.release(text, keep=False)
            self._running.clear()
            self._slots.close()
            news = [arrival.news(end) for arrival in rest if not arrival.ticket.is_cancelled]
            if news:
                self._hand_over(news)

    def _wait_for_texts(self) -> bool:
        """Waits until there is a text; returns False when the thread should end."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_texts or self._is_stopping)
            return not self._is_stopping

    def _step(self) -> list[News]:
        """One call of the engine: reads a part of each text, and draws a token of those read to their end."""
        start, num_reused, num_read = perf_counter(), self._slots.num_reused, self._num_read
        self._leave_cancelled()
        news = self._admit()
        try:
            with shortages_named():
                news += self._read()
        except Exception as error:  # noqa: BLE001 (the engine's error ends the texts; the thread goes on)
            news += self._fail(list(self._running), error)
        num_generated = sum(isinstance(step, Step) for _, _, step in news)
        self._num_generated += num_generated
        num_read, num_reused = self._num_read - num_read, self._slots.num_reused - num_reused
        self._observer.step(num_read, num_generated, num_reused, perf_counter() - start)
        return news

    def _leave_cancelled(self) -> None:
        """Ends the texts whose ticket is cancelled, in the queue or not."""
        if not self._has_cancelled:
            return
        self._has_cancelled = False  # before the search: a ticket that is cancelled during it is found next time
        self._leave([text for text in self._running if text.arrival.ticket.is_cancelled])
        with self._changed:
            kept = [arrival for arrival in self._waiting if not arrival.ticket.is_cancelled]
            self._num_texts -= len(self._waiting) - len(kept)
            self._waiting = deque(kept)
            self._changed.notify_all()

    def _admit(self) -> list[News]:
        """Moves texts from the queue to free places, in the order of arrival; returns the errors of some."""
        news = []
        while self._waiting and len(self._running) < self._max_slots:
            text = self._new_text(self._waiting[0])
            self._running.append(text)
            self._waiting.popleft()
            self._observer.admitted(text.start - text.arrival.time)
            if text.arrival.request.prompt_logprobs:
                news += self._score_prompt(text)
        return news

    def _new_text(self, arrival: Arrival) -> Text:
        """The text of `arrival`. Texts with equal settings share one choice: their tokens are drawn together."""
        unused = {"seed": 0, "max_new_tokens": 1, "stop": ()}
        settings: SamplingConfig = arrival.request.sampling.model_copy(update=unused)
        equal = (text.choice for text in self._running if text.choice.config == settings)
        return Text(arrival, self._tokenizer, next(equal, None) or TokenChoice(self._engine, settings))

    def _score_prompt(self, text: Text) -> list[News]:
        """Computes the log-probabilities of the prompt of `text`, in a call of its own; returns the error of it."""
        request = text.arrival.request
        try:
            with shortages_named():
                (logits,) = self._engine.read_logits([np.array(request.prompt_ids, np.int64)])
                text.prompt = prompt_logprobs(request.prompt_ids, logits, request.top_logprobs)
        except Exception as error:  # noqa: BLE001 (the request's error ends its text; the thread goes on)
            return self._fail([text], error)
        return []

    def _read(self) -> list[News]:
        """Gives new texts a slot, reads a part of each text, and returns the news of those that got a token."""
        for text in self._running:
            if text.slot is None:
                self._slots.place(text, self._running)
        parts = self._parts()
        tokens: Tokens | list[Tokens]
        if all(count == 1 for _, count in parts):
            tokens = np.array([[text.window[text.held]] for text, _ in parts], np.int64)
        else:
            tokens = [np.array(text.window[text.held : text.held + count], np.int64) for text, count in parts]
        logits = self._engine.read([text.slot for text, _ in parts if text.slot is not None], tokens)
        for text, count in parts:
            text.held += count
            self._num_read += count
        news, first = [], 0
        ready = (text for text, _ in parts if text.num_unread == 0)
        for _, group in groupby(ready, key=lambda text: text.choice):
            texts = list(group)
            news += self._draw(texts, logits[first : first + len(texts)] if len(texts) < len(logits) else logits)
            first += len(texts)
        return news

    def _parts(self) -> list[tuple[Text, int]]:
        """The texts that this step reads, and the number of tokens of each.

        Texts read to their end come first, grouped by choice: each group's logits are a slice, without a copy.
        """
        room, parts = PROMPT_TOKENS_A_STEP, []
        for text in self._running:
            count = text.num_unread
            if count > 1:
                count = min(count, room) if text.slot is not None else 0
                room -= count
            if count:
                parts.append((text, count))
        parts.sort(key=lambda part: (part[1] < part[0].num_unread, id(part[0].choice)))
        return parts

    def _draw(self, texts: list[Text], logits: Logits) -> list[News]:
        """Draws the next token of each of `texts`, which share a choice, from its row of `logits` (B, V).

        A text whose logits are not finite ends with an error.
        """
        uniforms = np.array([next(text.uniforms) for text in texts])
        news: list[News] = []
        try:
            tokens, log_probabilities = self._choose(texts, logits, uniforms)
        except FormatError as error:
            finite = np.array([np.isfinite(row).all() for row in logits])
            news += self._fail(list(compress(texts, ~finite)), error)
            texts, logits = list(compress(texts, finite)), logits[finite]
            if not texts:
                return news
            tokens, log_probabilities = self._choose(texts, logits, uniforms[finite])
        now = perf_counter()
        drawn = zip(texts, tokens.tolist(), log_probabilities.tolist(), logits, strict=True)
        news += [self._add(text, token, number, row, now) for text, token, number, row in drawn]
        self._leave([text for text in texts if text.sample.finish_reason])
        return news

    def _choose(self, texts: list[Text], logits: Logits, uniforms: Doubles) -> tuple[Tokens, Doubles]:
        choice = texts[0].choice
        seen = np.stack([text.seen for text in texts]) if choice.uses_seen else self._none_seen[: len(texts)]
        return choice.choose(logits, seen, uniforms, [text.sample.token_ids for text in texts])

    def _add(self, text: Text, token: int, log_probability: float, logits: Logits, now: float) -> News:
        """Appends a token to `text`; returns the news of it."""
        step = text.add(token, log_probability, logits, self._engine.context_length)
        if text.slot is not None and text.held == 0:
            self._slots.restart(text)
        if len(text.sample.token_ids) == 1:
            text.first_time = now
            self._observer.first_token(now - text.arrival.time)
        text.last_time = now
        return text.arrival.news(step)

    def _fail(self, texts: Sequence[Text], error: Exception) -> list[News]:
        """Ends `texts` with `error`; returns their last news."""
        news = [text.arrival.news(error) for text in texts]
        self._leave(texts, keep=False)
        return news

    def _leave(self, texts: Sequence[Text], *, keep: bool = True) -> None:
        """Takes `texts` out of the batch. `keep` says whether their slots may serve texts with the same beginning."""
        if not texts:
            return
        for text in texts:
            self._slots.release(text, keep=keep)
            self._observer.ended(len(text.sample.token_ids), text.seconds_per_token)
            self._seconds_per_text += (1 - OLD_SHARE) * (perf_counter() - text.start - self._seconds_per_text)
        with self._changed:
            self._running = [text for text in self._running if text not in texts]
            self._num_texts -= len(texts)
            self._changed.notify_all()
