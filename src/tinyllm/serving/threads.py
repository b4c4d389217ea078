"""Long work beside the event loop, in threads that the end of the server does not wait for.

A thread cannot be stopped while it imports PyTorch, compiles kernels or runs a model. So a request that waits for one
is answered when the server ends. The process can end while the thread still works, which writes whole files alone.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tinyllm.errors import ShuttingDownError

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """The threads of one server. Only the event loop's thread uses this, `join` aside."""

    def __init__(self) -> None:
        self._running: set[threading.Thread] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = False

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `function`, called in a thread. Raises its errors, and ShuttingDownError when the server ends.

        A caller that is cancelled leaves the thread to itself.
        """
        if self._is_closed:
            raise ShuttingDownError("the server is shutting down")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
                errors.append(error)
            _wake(loop, done)

        thread = threading.Thread(target=work, name="request", daemon=True)
        self._running = {each for each in self._running if each.is_alive()} | {thread}
        self._waiting.add(done)
        try:
            thread.start()
            await done
        finally:
            self._waiting.discard(done)
        if errors:
            raise errors[0]
        if not results:
            raise ShuttingDownError("the server is shutting down")
        return results[0]

    def close(self) -> None:
        """Ends the waiting of all callers; the server ends."""
        self._is_closed = True
        for done in self._waiting:
            _finish(done)

    def join(self, seconds: float) -> bool:
        """Waits for the threads to end, `seconds` at most; returns whether all have."""
        limit = time.monotonic() + seconds
        for thread in self._running:
            thread.join(max(0.0, limit - time.monotonic()))
        return not any(thread.is_alive() for thread in self._running)


def _wake(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[None]") -> None:
    """Ends the wait for a thread, from that thread."""
    try:
        loop.call_soon_threadsafe(_finish, done)
    except RuntimeError:
        return  # the server has ended: nobody waits


def _finish(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
