"""Answers of the studio's routes: JSON of any value that files can hold, and server-sent events.

Names and texts come from files, so a text may be no valid Unicode, and a number may be infinite.
"""

import asyncio
import json
import logging
import math
from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tinyllm.serving.errors import as_api_error
from tinyllm.serving.responses import send_error, start

logger = logging.getLogger(__name__)
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
HEADERS = {"Cache-Control": "no-store", **NO_SNIFFING}


def as_json(value: Any) -> bytes:
    """`value` as JSON in UTF-8. Numbers that are not finite become null, lone surrogates a question mark."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
    return text.encode(errors="replace")


def answer(value: Any) -> Response:
    """The response with `value` as JSON."""
    return Response(as_json(value), headers=HEADERS, media_type="application/json")


def event(name: str, value: Any) -> bytes:
    """The server-sent event `name` with `value` as JSON."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), as_json(value))


class EventResponse(Response):
    """Server-sent events from a generator, which is closed when it ends or when the client goes.

    Before its first chunk, an error is a response of its own; later it is the event `error`, the last one.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks
        self.background = None
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        sender = asyncio.create_task(self._send_all(send))
        watcher = asyncio.create_task(_wait_for_end(receive))
        try:
            await asyncio.wait((sender, watcher), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, watcher):
                task.cancel()
            await asyncio.gather(sender, watcher, return_exceptions=True)
            await self._chunks.aclose()
        if sender.done() and not sender.cancelled():
            sender.result()

    async def _send_all(self, send: Send) -> None:
        has_started = False
        try:
            async for chunk in self._chunks:
                if not has_started:
                    await start(send, 200, b"text/event-stream; charset=utf-8", headers=NO_SNIFFING)
                    has_started = True
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except Exception as error:
            failure = as_api_error(error)
            if failure.status == 500:
                logger.error("a stream failed", exc_info=error)
            if not has_started:
                self.status_code = failure.status
                await send_error(failure, send)
                return
            await send({"type": "http.response.body", "body": event("error", failure.fields), "more_body": True})
        if not has_started:
            await start(send, 200, b"text/event-stream; charset=utf-8", headers=NO_SNIFFING)
        await send({"type": "http.response.body", "body": b""})


async def _wait_for_end(receive: Receive) -> None:
    """Returns when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _finite(value: Any) -> Any:
    """A copy of `value` with None for each number that is not finite."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value
