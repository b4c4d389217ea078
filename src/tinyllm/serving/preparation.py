"""Threads that prepare the requests of one model: its template and its tokenizer.

They are apart from the threads of other models, of generation and of the server's end, so that slow work holds up none
of these.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from tinyllm.errors import QueueFullError, ShuttingDownError

P = ParamSpec("P")
T = TypeVar("T")
NUM_THREADS = 2
MOST_REQUESTS = 256
"""Requests that are being prepared, or wait for it."""


class Preparation:
    """The threads of one model. Only the event loop's thread uses this."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="preparation")
        self._num_requests = 0
        self._is_closed = False

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `function`, called in a thread; the first that came is first.

        Raises QueueFullError if too many wait, ShuttingDownError after `close`, and the errors of `function`.
        """
        if self._is_closed:
            raise ShuttingDownError("the server is shutting down")
        if self._num_requests >= MOST_REQUESTS:
            raise QueueFullError(f"{MOST_REQUESTS} requests to this model wait to be read", 1)
        self._num_requests += 1
        future = self._threads.submit(function, *args, **kwargs)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if self._is_closed:
                raise ShuttingDownError("the server is shutting down") from None
            raise
        finally:
            self._num_requests -= 1

    def close(self) -> None:
        """Ends the threads after the functions that run; the others are not called."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
