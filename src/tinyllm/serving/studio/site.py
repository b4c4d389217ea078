"""One server's studio: its models, the folder that it shows, and the threads that read there."""

import asyncio
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

from tinyllm.errors import ResourceError, ShuttingDownError, TinyllmError
from tinyllm.serving.errors import ApiError, shorten
from tinyllm.serving.limits import Limits
from tinyllm.serving.models import Models
from tinyllm.serving.studio.library import EMPTY, Catalogue, Item, Library, shown
from tinyllm.serving.studio.page_files import PageFiles
from tinyllm.serving.studio.run_states import RunStates
from tinyllm.serving.studio.watch import Watchers
from tinyllm.serving.threads import Threads

MOST_READERS = 2
"""Threads that read runs and shards at a time, so that a page which asks for much leaves others their share."""
P = ParamSpec("P")
T = TypeVar("T")


class Studio:
    """The parts that the studio's routes share."""

    def __init__(
        self, models: Models, limits: Limits, library: Library | None = None, threads: Threads | None = None
    ) -> None:
        """Without `library`, the page shows the models alone. `threads` are those of the server."""
        self.models, self.limits, self.library = models, limits, library
        self.page = PageFiles()
        self.states = RunStates(self.read)
        self.watchers = Watchers(self.states, limits.unread_bytes)
        self._reading: asyncio.Semaphore | None = None
        self.threads = threads or Threads()
        models.on_close(self.watchers.close)
        models.on_close(self.threads.close)

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function that reads files, called in a thread; at most `MOST_READERS` run at a time.

        Raises ApiError for files that are damaged or that nobody may read: the server itself is well.
        """
        if self._reading is None:
            self._reading = asyncio.Semaphore(MOST_READERS)  # made in the loop that uses it
        async with self._reading:
            try:
                return await self.threads.call(function, *args, **kwargs)
            except (ResourceError, ShuttingDownError):
                raise
            except (TinyllmError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                message, values = f"this cannot be read: {shown(reason)}", {"reason": shown(reason)}
                raise ApiError(400, message, code="unreadable", values=values) from error

    async def catalogue(self) -> Catalogue:
        """The places in the folder."""
        return EMPTY if self.library is None else await self.read(self.library.search)

    async def find(self, kind: Literal["runs", "shards", "tokenizers"], id: str) -> Item:
        """The place of a kind with this id. Raises ApiError unless the search of the folder has found it."""
        known: Catalogue = EMPTY if self.library is None else self.library.catalogue
        for catalogue in (known, await self.catalogue()) if id not in getattr(known, kind) else (known,):
            found: Item | None = getattr(catalogue, kind).get(id)
            if found is not None:
                return found
        message = f"the folder has no {kind.removesuffix('s')} of this id"
        raise ApiError(404, message, param="id", code="not_found", values={"id": shorten(id)})
