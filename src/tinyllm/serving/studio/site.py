"""One server's studio: its models, and what must end with the server."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tinyllm.serving.limits import Limits
from tinyllm.serving.models import Models
from tinyllm.serving.studio.page_files import PageFiles

MOST_READERS = 2
"""Threads that read runs and shards at a time, so that a page which asks for much leaves others their share."""
P = ParamSpec("P")
T = TypeVar("T")


class Studio:
    """The parts that the studio's routes share."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.page = PageFiles()
        self._reading: asyncio.Semaphore | None = None

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function that reads files, called in a thread; at most `MOST_READERS` run at a time."""
        if self._reading is None:
            self._reading = asyncio.Semaphore(MOST_READERS)  # made in the loop that uses it
        async with self._reading:
            return await asyncio.to_thread(function, *args, **kwargs)

    def close(self) -> None:
        """Ends the streams that would go on for ever; the server ends."""
