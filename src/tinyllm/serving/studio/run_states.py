"""The state of each run that a client looks at, with the lines of its log counted only once."""

from collections.abc import Awaitable, Callable
from typing import Any

from tinyllm.serving.studio.curves import MOST_SKIPS, Cursor, Curves, read_curves, read_news
from tinyllm.serving.studio.library import RUN_LOG, Item
from tinyllm.serving.studio.runs import Settings, describe
from tinyllm.serving.studio.step_log import Place

Read = Callable[..., Awaitable[Any]]
"""Calls a function with its arguments in a thread."""
MOST_KNOWN = 500


class RunStates:
    """The place up to which the log of each run is known, and the skipped updates before it."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self._known: dict[str, tuple[Cursor, list[int]]] = {}

    async def describe(self, item: Item) -> dict[str, Any]:
        """The object of one run at this moment."""
        _, skips = await self._advance(item)
        described: dict[str, Any] = await self.read(describe, item, skips)
        return described

    async def end(self, item: Item) -> Cursor:
        """The end of the log at this moment."""
        cursor, _ = await self._advance(item)
        return cursor

    async def _advance(self, item: Item) -> tuple[Cursor, list[int]]:
        """Reads what was added to the log since the last call; all of it at first, and after it was rewritten."""
        known = self._known.pop(item.id, None)
        news: Curves | None = None
        if known is not None:
            news = await self.read(read_after, item, known[0], 2)
        if known is None or news is None:
            known, news = None, await self.read(_read_all, item)
        skips = [*(known[1] if known else []), *news.skips][:MOST_SKIPS]
        self._known[item.id] = news.cursor, skips
        while len(self._known) > MOST_KNOWN:
            self._known.pop(next(iter(self._known)))
        return news.cursor, skips


def read_after(item: Item, cursor: Cursor, points: int, end: Place | None = None) -> Curves | None:
    """The curves of the lines of a run after `cursor`; None if the log was rewritten."""
    settings = Settings.read(item.path)
    return read_news(
        item.path / RUN_LOG,
        cursor,
        points,
        tokens_per_step=settings.tokens_per_step,
        eval_interval=settings.eval_interval,
        end=end,
    )


def _read_all(item: Item) -> Curves:
    settings = Settings.read(item.path)
    return read_curves(item.path / RUN_LOG, 2, tokens_per_step=settings.tokens_per_step, eval_interval=None)
