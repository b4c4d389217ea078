"""Follows a run while somebody looks at it: its files are read once a second, whoever and however many look.

A look is one stream of server-sent events. Its news wait in a bounded list; a client that reads too slowly is dropped.

    watchers.open()                  reserves a stream
    watchers.follow(item, cursor)    its chunks, until the client goes or the server ends
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tinyllm.errors import QueueFullError
from tinyllm.serving.streams import ALIVE, ALIVE_SECONDS
from tinyllm.serving.studio.answers import event
from tinyllm.serving.studio.curves import Cursor
from tinyllm.serving.studio.library import Item
from tinyllm.serving.studio.run_states import RunStates, read_after
from tinyllm.serving.studio.samples import end_of_samples, read_new_samples
from tinyllm.serving.studio.step_log import Place

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RESTART = event("restart", {})
"""The last event of a stream whose log was rewritten: the client reads the log again, and follows from its end."""
NEW_POINTS = 500
"""Points of each curve in one event."""
NEW_SAMPLES = 20
MOST_STREAMS = 64
STATE_POLLS = 5
"""Polls between two looks at the state of a run whose log did not grow."""


@dataclass
class Look:
    """One client's stream: the chunks that it has not taken."""

    limit_bytes: int
    chunks: list[bytes] = field(default_factory=list)
    num_bytes: int = 0
    is_over: bool = False
    """Whether nothing more is sent; what is unread is dropped."""
    is_last: bool = False
    """Whether the stream ends after the chunks that are there."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, chunk: bytes) -> None:
        """Adds a chunk; ends the stream if too much is unread."""
        self.num_bytes += len(chunk)
        if self.num_bytes > self.limit_bytes and self.chunks:
            self.end()
            return
        self.chunks.append(chunk)
        self.changed.set()

    def finish(self, chunk: bytes) -> None:
        """Adds the last chunk."""
        self.put(chunk)
        self.is_last = True

    def end(self) -> None:
        """Ends the stream; what is unread is dropped."""
        self.is_over = True
        self.chunks.clear()
        self.changed.set()

    async def take(self) -> bytes:
        """The next chunks; a comment if none come for a while."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), ALIVE_SECONDS)
        self.changed.clear()
        chunks, self.chunks, self.num_bytes = self.chunks, [], 0
        return b"".join(chunks) or ALIVE


class RunWatch:
    """The followers of one run, and the task that reads its files while there are any."""

    def __init__(self, item: Item, states: RunStates) -> None:
        self._item, self._states, self._read = item, states, states.read
        self.looks: list[Look] = []
        self.num_users = 0
        """Streams that follow the run, or are about to."""
        self._cursor: Cursor | None = None
        """The place up to which all followers have the lines."""
        self._samples = Place(0, 0)
        self._state: dict[str, Any] = {}
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def add(self, look: Look, cursor: Cursor | None) -> None:
        """Adds a follower, who gets the state and the lines after `cursor`, then all that is new."""
        async with self._turn:
            if self._cursor is None:
                self._samples = await self._read(end_of_samples, self._item.path)
                self._cursor = await self._states.end(self._item)
                self._state = await self._states.describe(self._item)
            else:
                await self._poll()
            look.put(event("state", self._state))
            if cursor is not None and cursor.place != self._cursor.place:
                news = await self._read(read_after, self._item, cursor, NEW_POINTS, self._cursor.place)
                if news is None:
                    look.finish(RESTART)
                    return
                look.put(event("metrics", news.fields()))
            self.looks.append(look)
        if self._task is None:
            self._task = asyncio.create_task(self._follow())

    def remove(self, look: Look) -> None:
        """Removes a follower."""
        if look in self.looks:
            self.looks.remove(look)

    def close(self) -> None:
        """Ends all streams and the task."""
        for look in self.looks:
            look.end()
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        try:
            while True:
                for _ in range(STATE_POLLS):
                    await asyncio.sleep(POLL_SECONDS)
                    async with self._turn:
                        await self._poll()
                await self._send_state()
        except Exception:
            logger.exception("following a run failed")
            self.close()
            raise

    async def _poll(self) -> None:
        """Reads what is new and gives it to all followers."""
        assert self._cursor is not None
        news = await self._read(read_after, self._item, self._cursor, NEW_POINTS)
        if news is None:
            self._cursor = await self._states.end(self._item)
            for look in self.looks:
                look.finish(RESTART)
            self.looks = []
        else:
            self._cursor = news.cursor
            if news.num_lines:
                self._send(event("metrics", news.fields()))
        samples, self._samples = await self._read(read_new_samples, self._item.path, self._samples, NEW_SAMPLES)
        if samples:
            self._send(event("samples", {"samples": samples}))
        if news is None or news.num_lines or samples:
            await self._send_state()

    async def _send_state(self) -> None:
        """Gives the state to all followers if it changed."""
        state = await self._states.describe(self._item)
        if state != self._state:
            self._state = state
            self._send(event("state", state))

    def _send(self, chunk: bytes) -> None:
        for look in self.looks:
            look.put(chunk)


class Watchers:
    """All streams of a server."""

    def __init__(self, states: RunStates, limit_bytes: int) -> None:
        """A client may leave `limit_bytes` unread."""
        self._states, self._limit_bytes = states, limit_bytes
        self._watches: dict[str, RunWatch] = {}
        self._num_streams = 0
        self._is_closed = False

    @property
    def num_streams(self) -> int:
        """Streams that are open."""
        return self._num_streams

    def open(self) -> None:
        """Reserves a stream. Raises QueueFullError if there are `MOST_STREAMS`."""
        if self._num_streams >= MOST_STREAMS:
            raise QueueFullError(f"{MOST_STREAMS} streams of runs are open, which is the limit", 10)
        self._num_streams += 1

    async def follow(self, item: Item, cursor: Cursor | None) -> AsyncGenerator[bytes, None]:
        """The chunks of a stream that `open` reserved."""
        look = Look(self._limit_bytes)
        watch = self._watches.setdefault(item.id, RunWatch(item, self._states))
        watch.num_users += 1
        try:
            await watch.add(look, cursor)
            while not look.is_over and not self._is_closed:
                yield await look.take()
                if look.is_last and not look.chunks:
                    return
        finally:
            watch.remove(look)
            watch.num_users -= 1
            if not watch.num_users:
                watch.close()
                self._watches.pop(item.id, None)
            self._num_streams -= 1

    def close(self) -> None:
        """Ends all streams; the server ends."""
        self._is_closed = True
        for watch in self._watches.values():
            watch.close()
