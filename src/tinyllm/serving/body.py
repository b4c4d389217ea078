"""Reads the body of a request before the framework does: bounded in bytes and in nesting, and UTF-8. A middleware."""

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinyllm.serving.errors import ApiError, shorten
from tinyllm.serving.limits import Limits
from tinyllm.serving.responses import send_error, start

LINGER_SECONDS = 2.0
"""Time for which a body that is too large is read and dropped, so that its sender can read the answer."""
LINGER_BODIES = 8
"""Bytes of such a body that are read and dropped, as a multiple of the largest body allowed."""
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))*+([\[\]{}]|\Z)', re.DOTALL)
"""Everything up to the next bracket outside of strings, or to the end. It never goes back: that would take memory."""


class BodyReader:
    """ASGI middleware that reads whole bodies within `limits` and refuses others."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if error := _refused_coding(scope["headers"]):
            await send_error(error, send)
            return
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        body = bytearray()
        has_more = True
        while has_more and len(body) <= self._limits.body_bytes and not self._is_too_large(lengths):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        if has_more or len(body) > self._limits.body_bytes:
            await self._refuse_size(receive, send, has_more=has_more)
            return
        depth, most = self._limits.json_depth, self._limits.json_collections
        if is_deeper(body, depth, most):
            reason = f"the body nests arrays and objects deeper than {depth}, or has more than {most:,} of them"
            await send_error(ApiError(400, reason, code="nested_too_deep"), send)
            return
        if not is_utf8(body):
            await send_error(ApiError(400, "The body is not valid JSON: it is no UTF-8"), send)
            return
        await self._app(scope, _replay(bytes(body), receive), send)

    def _is_too_large(self, lengths: list[bytes]) -> bool:
        return any(int(length) > self._limits.body_bytes for length in lengths)

    async def _refuse_size(self, receive: Receive, send: Send, *, has_more: bool) -> None:
        """Sends the error, then reads on for a while: a connection closed at once could lose the answer."""
        reason = f"the body is larger than {self._limits.body_bytes:,} bytes; send less in one request"
        error = ApiError(413, reason, code="request_too_large", headers={"Connection": "close"})
        await start(send, error.status, b"application/json", length=len(error.body), headers=error.headers)
        await send({"type": "http.response.body", "body": error.body, "more_body": True})
        if has_more:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._drop(receive)
        await send({"type": "http.response.body", "body": b""})

    async def _drop(self, receive: Receive) -> None:
        num_left = LINGER_BODIES * self._limits.body_bytes
        while num_left > 0:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
            num_left -= len(message.get("body", b""))


def _refused_coding(headers: Iterable[tuple[bytes, bytes]]) -> ApiError | None:
    """The error for a body that is compressed; None for one that is sent as it is."""
    for name, value in headers:
        coding = value.decode("latin-1").strip().lower()
        if name == b"content-encoding" and coding not in ("", "identity"):
            return ApiError(415, f"Content-Encoding {shorten(coding)} is not supported; send the body uncompressed")
        if name == b"transfer-encoding" and coding not in ("", "identity", "chunked"):
            return ApiError(501, f"Transfer-Encoding {shorten(coding)} is not supported; send the body uncompressed")
    return None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body, and then what the connection gives."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def is_utf8(text: bytes | bytearray) -> bool:
    """Whether the JSON `text` is UTF-8. It has no null characters, but UTF-16 and UTF-32 have null bytes."""
    try:
        return "\0" not in text.decode()
    except UnicodeDecodeError:
        return False


def is_deeper(text: bytes | bytearray, depth: int, most_collections: int) -> bool:
    """Whether the JSON `text` nests arrays and objects deeper than `depth`, or has more than `most_collections`.

    Brackets in strings do not count. The memory of the search does not depend on the length of `text`.
    """
    if text.count(b"[") + text.count(b"{") <= min(depth, most_collections):
        return False
    num_open = num_collections = 0
    for found in _TO_BRACKET.finditer(text):
        is_opening = found[1] in (b"[", b"{")
        num_open += 1 if is_opening else -1
        num_collections += is_opening
        if num_open > depth or num_collections > most_collections:
            return True
    return False
