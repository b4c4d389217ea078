"""Models of a folder that are loaded when a request names them; the one unused for longest makes room for another.

The event loop never waits: models are loaded and closed in threads. A model with a text in it, or with a request that
is being prepared, is never closed.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.errors import ResourceError, ShuttingDownError, TinyllmError
from tinyllm.serving.errors import ApiError, model_not_found
from tinyllm.serving.models import ServedModel, describe
from tinyllm.serving.threads import Threads

MOST_LOADED = 4
"""Models of the folder that are in memory at a time."""


@dataclass(frozen=True)
class FoundModel:
    """A model directory that can be loaded."""

    path: Path
    context_length: int
    changed: float
    """The time of its last change, in seconds since 1970; a changed model is loaded again."""


class ModelPool:
    """The models of a folder by name. Only the event loop's thread uses it."""

    def __init__(
        self,
        found: Callable[[], Mapping[str, FoundModel]],
        search: Callable[[], object],
        load: Callable[[str, Path], ServedModel],
        most_loaded: int = MOST_LOADED,
        threads: Threads | None = None,
    ) -> None:
        """`found` gives the models of the last search. `search` and `load` are called in one of `threads`."""
        self._find, self._search, self._load, self._most_loaded = found, search, load, most_loaded
        self._threads = threads or Threads()
        self._loaded: dict[str, tuple[ServedModel, FoundModel]] = {}
        self._loading: asyncio.Lock | None = None
        self._searching: asyncio.Lock | None = None
        self._is_closed = False

    def has(self, name: str) -> bool:
        """Whether the folder has a model of this name."""
        return name in self._find()

    def first_name(self) -> str | None:
        """The name of the first model; None if there is none."""
        return next(iter(self._find()), None)

    def describe_all(self) -> list[dict[str, Any]]:
        """The objects of `/v1/models` for all models, loaded or not."""
        return [describe(name, int(each.changed), each.context_length) for name, each in self._find().items()]

    @property
    def loaded(self) -> list[ServedModel]:
        """The models that are in memory."""
        return [model for model, _ in self._loaded.values()]

    async def refresh(self) -> None:
        """Searches the folder again; one search at a time."""
        if self._searching is None:
            self._searching = asyncio.Lock()
        async with self._searching:
            await self._threads.call(self._search)

    async def open(self, name: str) -> ServedModel:
        """The model of a name that exists, which is loaded first if need be. One model is loaded at a time.

        Raises ApiError for a model that cannot be loaded, ResourceError if it does not fit, or if every model that is
        loaded is in use.
        """
        if self._loading is None:
            self._loading = asyncio.Lock()  # made in the loop that uses it
        async with self._loading:
            found = self._find().get(name)
            if found is None:
                raise model_not_found(name)
            if name in self._loaded:
                model, version = self._loaded[name]
                if version == found or model.is_used:
                    return model
                await self._close(name)
            while len(self._loaded) >= self._most_loaded:
                await self._close(self._longest_unused())
            if self._is_closed:
                raise ShuttingDownError("the server is shutting down")
            model = await self._load_in_thread(name, found)
            model.scheduler.start()
            self._loaded[name] = model, found
            if self._is_closed:
                await self._close(name)
                raise ShuttingDownError("the server is shutting down")
            return model

    def close(self) -> None:
        """Loads no further model. Loaded models stay until their schedulers drain."""
        self._is_closed = True
        self._threads.close()

    async def _load_in_thread(self, name: str, found: FoundModel) -> ServedModel:
        try:
            return await self._threads.call(self._load, name, found.path)
        except (ResourceError, ShuttingDownError, MemoryError, ApiError):
            raise
        except (TinyllmError, OSError) as error:
            reason = f"the model cannot be loaded: {error}"
            values = {"model": name, "reason": str(error)}
            raise ApiError(400, reason, param="model", code="model_cannot_be_loaded", values=values) from error

    def _longest_unused(self) -> str:
        """The name of the idle model that was used least recently. Raises ResourceError if none is idle."""
        idle = [(model.last_used, name) for name, (model, _) in self._loaded.items() if not model.is_used]
        if not idle:
            raise ResourceError(f"{self._most_loaded} models are loaded and all are in use; try again in a while")
        return min(idle)[1]

    async def _close(self, name: str) -> None:
        model, _ = self._loaded.pop(name)
        model.preparation.close()
        model.templates.close()
        await asyncio.to_thread(model.scheduler.drain, 0)
