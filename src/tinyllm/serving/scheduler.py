"""The scheduler: a queue of requests before one thread, which owns the engine and runs a `ContinuousBatch` on it.

First come, first served: a text waits in the queue until another one ends. Any thread may submit and cancel.

    scheduler = Scheduler(generator, max_slots=64, max_queue=256)
    scheduler.start()
    ticket = scheduler.submit(request, deliver)          news come after each step
    scheduler.cancel(ticket)
    scheduler.drain(seconds=30)
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from tinyllm.errors import ConfigError, InputError, QueueFullError, ShuttingDownError
from tinyllm.generation.generator import Generator
from tinyllm.generation.sampling import check_biases
from tinyllm.serving.batching import ContinuousBatch
from tinyllm.serving.request import SILENT, Deliver, News, Observer, Stats, TextRequest, Ticket, deliver_all
from tinyllm.serving.text import Arrival, PromptScores


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

        `hand_over` gets all news of a step at once, in the scheduler's thread; it must neither block nor raise. None of
        its news may be held after a call with an empty list. Raises
        ResourceError if the slots do not fit into memory.
        """
        self._generator, self._hand_over = generator, hand_over
        self._max_slots, self._max_texts = max_slots, max_slots + max_queue
        self._batch = ContinuousBatch(generator.engine, generator.tokenizer, max_slots, observer)
        self._waiting: deque[Arrival] = deque()
        self._changed = threading.Condition()
        """Guards the queue and the fields below; only the thread changes the batch."""
        self._has_cancelled = self._is_draining = self._is_stopping = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, request: TextRequest, deliver: Deliver) -> Ticket:
        """Queues one text; `deliver(0, step)` is called after each of its steps. Raises as `submit_group`."""
        return self.submit_group([request], deliver)

    def submit_group(self, requests: Sequence[TextRequest], deliver: Deliver, ticket: Ticket | None = None) -> Ticket:
        """Queues all `requests` or none; `deliver(index, step)` is called after each step of text `index`.

        Returns the handle of the texts: `ticket`, or a new one without a limit of bytes.
        Raises QueueFullError if there is no room, ShuttingDownError after `drain` or a failure. Raises InputError or
        ConfigError for a request that this model cannot take.
        """
        for request in requests:
            self._check(request)
        if len(requests) > self._max_texts:
            raise InputError(f"{len(requests)} texts are asked for at once; at most {self._max_texts} fit in the queue")
        ticket = ticket or Ticket()
        with self._changed:
            if self._failure or self._is_draining:
                raise ShuttingDownError("the server is shutting down") from self._failure
            if self._num_texts + len(requests) > self._max_texts:
                raise QueueFullError("all slots are in use and the queue is full", self._retry_after_seconds())
            self._waiting.extend(_arrivals(requests, ticket, deliver))
            self._changed.notify_all()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends the texts of `ticket` before the next step, without further news. Any thread may call this."""
        ticket.is_cancelled = self._has_cancelled = True
        with self._changed:
            self._changed.notify_all()

    def release(self, ticket: Ticket, num_bytes: int) -> None:
        """Counts news of `ticket` that its reader took; texts that waited for it go on. One thread may call this."""
        was_full = ticket.is_full
        ticket.num_taken_bytes += num_bytes
        if was_full:
            with self._changed:
                self._changed.notify_all()

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
        batch = self._batch
        return Stats(
            num_running=len(batch.texts),
            num_waiting=len(self._waiting),
            num_slots=self._max_slots,
            num_generated=batch.num_generated,
            num_read=batch.num_read,
            num_reused=batch.num_reused,
        )

    @property
    def _num_texts(self) -> int:
        """Texts that wait or run."""
        return len(self._waiting) + len(self._batch.texts)

    def _check(self, request: TextRequest) -> None:
        ids, engine = request.prompt_ids, self._generator.engine
        limit, vocab_size = engine.context_length, engine.vocab_size
        if not 1 <= len(ids) <= limit:
            raise InputError(f"the prompt has {len(ids)} tokens; at least 1 is needed, and the context holds {limit}")
        for id in ids:
            self._generator.tokenizer.check_id(id)
        check_biases(request.sampling, vocab_size)
        if not 0 <= request.top_logprobs <= vocab_size:
            raise ConfigError(f"top_logprobs is {request.top_logprobs}; it can be 0 to {vocab_size}")

    def _retry_after_seconds(self) -> int:
        """A guess at the time until a place is free: the age of the oldest text over the number of texts."""
        oldest = min((text.start for text in self._batch.texts), default=perf_counter())
        return max(1, math.ceil((perf_counter() - oldest) / self._max_slots))

    def _run(self) -> None:
        """The life of the thread. Every text gets an end, whatever happens."""
        end: Exception = ShuttingDownError("the server is shutting down")
        try:
            while self._wait_for_texts():
                self._leave_cancelled()
                self._admit()
                self._hand_over(self._batch.step())
        except Exception as error:  # noqa: BLE001 (every request is told)
            self._failure = end = error
        finally:
            self._end_all(end)

    def _wait_for_texts(self) -> bool:
        """Waits until a text can go on; returns False when the thread should end."""
        with self._changed:
            self._changed.notify_all()  # `drain` waits for the texts of the last step
            if self._num_texts and not self._can_step():
                self._hand_over([])  # readers cannot take news that are held for a later step
            self._changed.wait_for(lambda: self._can_step() or self._is_stopping)
            return not self._is_stopping

    def _can_step(self) -> bool:
        """Whether a text can begin, go on, or leave."""
        texts = self._batch.texts
        has_next = bool(self._waiting) and len(texts) < self._max_slots
        has_left = self._has_cancelled and self._num_texts > 0
        return has_next or has_left or not all(text.waits_for_reader for text in texts)

    def _leave_cancelled(self) -> None:
        """Ends the texts whose ticket is cancelled, in the queue or not."""
        if not self._has_cancelled:
            return
        self._has_cancelled = False  # before the search: a ticket that is cancelled during it is found next time
        self._batch.remove([text for text in self._batch.texts if text.arrival.ticket.is_cancelled])
        with self._changed:
            self._waiting = deque(arrival for arrival in self._waiting if not arrival.ticket.is_cancelled)

    def _admit(self) -> None:
        """Moves texts from the queue to the batch, the first that came first."""
        while self._waiting and len(self._batch.texts) < self._max_slots:
            self._batch.add(self._waiting[0])
            self._waiting.popleft()  # afterwards: a text is always in one of the two

    def _end_all(self, end: Exception) -> None:
        """Gives every text its last news, unless it is cancelled."""
        with self._changed:
            arrivals = dict.fromkeys([*(text.arrival for text in self._batch.texts), *self._waiting])
            self._batch.close()
            self._waiting.clear()
            self._changed.notify_all()
        news = [arrival.news(end) for arrival in arrivals if not arrival.ticket.is_cancelled]
        if news:
            self._hand_over(news)


def _arrivals(requests: Sequence[TextRequest], ticket: Ticket, deliver: Deliver) -> Iterator[Arrival]:
    """The arrival of each request. Equal prompts share their scores."""
    shared: dict[tuple[tuple[int, ...], int], PromptScores] = {}
    for index, request in enumerate(requests):
        scores = None
        if request.prompt_logprobs:
            key = request.prompt_ids, request.top_logprobs if request.prompt_tops else 0
            scores = shared.setdefault(key, PromptScores(*key))
        yield Arrival(request, index, ticket, deliver, scores)
