"""Hands the steps of texts from schedulers' threads to the event loop, which never waits for an engine.

A scheduler hands over all steps of one call of its engine at once, so that it wakes the loop once. An `Inbox` holds the
steps of one request. Steps that are not taken yet are joined, so that a loaded server writes fewer and larger events.
A client that reads slowly is not cut off: the texts wait for it (`request.Ticket`) until the connection's time is over.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter

from tinyllm.generation.engines.protocol import Logits
from tinyllm.serving.request import News, Step, TokenLogprob, deliver_all

EVENT_SECONDS = 60e-6
"""Time of the event loop's thread for one event, and of a client on the same machine."""
PAUSE = 16
"""Smallest time between deliveries, in times of their events."""


class DisconnectedError(Exception):
    """The client has closed the connection."""


class Unread:
    """The joined steps of one text that nobody has taken yet."""

    __slots__ = ("finish_reason", "logits", "num_tokens", "prompt", "text", "tokens")

    def __init__(self) -> None:
        self.text = ""
        self.tokens: list[TokenLogprob] = []
        """Empty if the request does not ask for log-probabilities."""
        self.num_tokens = 0
        self.finish_reason: str | None = None
        self.prompt: Sequence[TokenLogprob | None] | None = None
        self.logits: Logits | None = None
        """The logits (V,) of the newest token, if the request asks for them."""


class Inbox:
    """The news of one request's texts. Only the event loop's thread uses it."""

    def __init__(self, num_texts: int, *, keeps_tokens: bool) -> None:
        """`keeps_tokens` keeps log-probabilities."""
        self.num_left = num_texts
        """Texts that have not ended."""
        self.cancel: Callable[[], None] = _do_nothing
        """Ends the texts that are still generated; set when they are submitted."""
        self.release: Callable[[int], None] = _do_nothing
        """Takes the number of bytes of news that were taken; set when the texts are submitted."""
        self._keeps_tokens = keeps_tokens
        self._num_bytes = 0
        self._unread: dict[int, Unread] = {}
        self._error: Exception | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._waits_for_end = False

    def put(self, index: int, step: Step | Exception) -> None:
        """Adds a step of text `index`, or the error that ended it."""
        if self._error is not None:
            return
        if isinstance(step, Exception):
            self.fail(step)
            return
        unread = self._unread.get(index)
        if unread is None:
            unread = self._unread[index] = Unread()
        unread.text += step.text
        unread.num_tokens += len(step.tokens)
        self._num_bytes += step.num_bytes(keeps_tokens=self._keeps_tokens)
        if self._keeps_tokens:
            unread.tokens.extend(step.tokens)
        if step.prompt is not None:
            unread.prompt = step.prompt
        if step.logits is not None:
            unread.logits = step.logits
        if step.finish_reason is not None:
            unread.finish_reason = step.finish_reason
            self.num_left -= 1
        self._wake()

    @property
    def is_over(self) -> bool:
        """Whether all texts have ended and all news are taken."""
        return not self.num_left and not self._unread

    def fail(self, error: Exception) -> None:
        """Ends the request and its texts with `error`; the first one counts."""
        self._error = self._error or error
        self._unread = {}
        self.close()
        self._wake()

    def close(self) -> None:
        """Ends the texts that are still generated; nobody reads their news."""
        cancel, self.cancel = self.cancel, _do_nothing
        if self.num_left:
            cancel()

    async def take(self, seconds: float | None = None) -> dict[int, Unread]:
        """The news of each text that has some, as soon as there are any; nothing if none come within `seconds`.

        Raises the error that ended the request.
        """
        limit = None if seconds is None else asyncio.get_running_loop().time() + seconds
        while not self._unread and self._error is None:
            in_time = await self._wait(limit)
            if not in_time and not self._unread and self._error is None:
                return {}
        if self._error is not None:
            raise self._error
        taken, num_bytes = self._unread, self._num_bytes
        self._unread, self._num_bytes = {}, 0
        self.release(num_bytes)
        return taken

    async def take_whole(self) -> list[Unread]:
        """The news of all texts, after all have ended. Raises as `take`."""
        self._waits_for_end = True
        while self.num_left and self._error is None:
            await self._wait()
        news = await self.take()
        return [news[index] for index in sorted(news)]

    async def _wait(self, limit: float | None = None) -> bool:
        """Waits to be woken; False if the loop's clock reaches `limit` before."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = None if limit is None else loop.call_at(limit, _finish, waiter, False)
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waits_for_end and self.num_left and self._error is None:
            return  # an answer that is sent whole needs the end alone
        if self._waiter is not None:
            _finish(self._waiter, True)


def _finish(waiter: "asyncio.Future[bool]", is_woken: bool) -> None:
    if not waiter.done():
        waiter.set_result(is_woken)


def _do_nothing(*_: object) -> None:
    """The end of a request that is not submitted."""


class Deliveries:
    """The way from the schedulers' threads to one event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Delivers to the running event loop from here on."""
        self._loop = asyncio.get_running_loop()

    def new_pacer(self) -> "EventPacer":
        """A pacer for the news of one scheduler."""
        return EventPacer(self)

    def deliver(self, news: list[News]) -> None:
        """Delivers `news` in the event loop; from any thread, without waiting."""
        assert self._loop is not None, "requests come from the event loop"
        try:
            self._loop.call_soon_threadsafe(deliver_all, news)
        except RuntimeError:
            # A closed loop has no requests; the scheduler's thread ends next.
            return


class EventPacer:
    """Delivers the news of one scheduler. Many texts at a time get fewer and larger events.

    An event costs processor time that the engine lacks: with 64 texts a quarter of the tokens per second. So the news
    of n texts are held until n x `EVENT_SECONDS` x `PAUSE` have passed since the last delivery. News of a step in
    which a text begins or ends are not held, and a step without news delivers all.
    """

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries
        self._held: list[News] = []
        self._last = 0.0

    def hand_over(self, news: list[News]) -> None:
        """Takes the news of a step, in the scheduler's thread."""
        self._held += news
        pause = len(news) * EVENT_SECONDS * PAUSE
        if not any(map(_is_urgent, news)) and perf_counter() < self._last + pause:
            return
        held, self._held = self._held, []
        self._last = perf_counter()
        if held:
            self._deliveries.deliver(held)


def _is_urgent(news: News) -> bool:
    """Whether a client waits for these news in particular: those of a text that begins or ends."""
    _, _, step = news
    return isinstance(step, Exception) or step.finish_reason is not None or step.is_first
