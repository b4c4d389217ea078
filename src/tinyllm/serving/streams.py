"""Answers of generated text: whole, or as server-sent events while it is generated.

A client that closes its connection ends the request's texts, whichever answer it waits for.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tinyllm.serving.deliveries import DisconnectedError, Inbox, Unread
from tinyllm.serving.errors import as_api_error
from tinyllm.serving.responses import send_error, start

END = b"data: [DONE]\n\n"
ALIVE_SECONDS = 10.0
"""Time without news after which a stream has a comment: a proxy closes a connection that is silent for too long."""
ALIVE = b": alive\n\n"


class WholeAnswer(Protocol):
    """The form of answers that are sent at once."""

    def whole(self, news: list[Unread]) -> bytes:
        """The object of all texts, after they have ended."""


class StreamedAnswer(Protocol):
    """The form of answers that are sent in events."""

    def event(self, news: dict[int, Unread]) -> bytes:
        """The server-sent event of what is new."""

    def last_event(self) -> bytes:
        """The end of a stream before the end that all streams have, maybe empty."""


class Answer(WholeAnswer, StreamedAnswer, Protocol):
    """The form of answers that are sent in either way."""


def as_event(fields: dict[str, Any]) -> bytes:
    """A server-sent event with `fields` as JSON."""
    return b"data: %b\n\n" % json.dumps(fields, separators=(",", ":")).encode()


class TextResponse(Response, ABC):
    """A response that is sent while, or after, texts are generated: `EventResponse` or `WholeResponse`.

    Before anything is sent, an error is a response with its own status.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.background = None
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await self._send(send)
        except DisconnectedError:
            self.status_code = 499  # nginx's number for a client that went away; it is only counted
        finally:
            watcher.cancel()
            self._inbox.close()

    async def _watch(self, receive: Receive) -> None:
        """Ends the request when the client closes the connection."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._inbox.fail(DisconnectedError())

    @abstractmethod
    async def _send(self, send: Send) -> None:
        """Sends the answer."""

    async def _refuse(self, error: Exception, send: Send) -> None:
        if isinstance(error, DisconnectedError):
            raise error
        failure = as_api_error(error)
        self.status_code = failure.status
        await send_error(failure, send)


class WholeResponse(TextResponse):
    """An answer that is sent when all texts have ended."""

    def __init__(self, inbox: Inbox, answer: WholeAnswer) -> None:
        super().__init__(inbox)
        self._answer = answer

    async def _send(self, send: Send) -> None:
        try:
            body = self._answer.whole(await self._inbox.take_whole())
        except Exception as error:  # noqa: BLE001 - every failure is answered in OpenAI's form
            return await self._refuse(error, send)
        await start(send, 200, b"application/json", length=len(body))
        return await send({"type": "http.response.body", "body": body})


class EventResponse(TextResponse):
    """An answer in server-sent events, while texts are generated.

    While a text waits or its prompt is read, comments show that the stream lives. An error after the first event or
    comment is the last event.
    """

    def __init__(self, inbox: Inbox, answer: StreamedAnswer, end: bytes = END, failure: bytes = b"") -> None:
        """`end` is sent last; `failure` stands before the event of an error, such as its name."""
        super().__init__(inbox)
        self._answer, self._end, self._failure = answer, end, failure

    async def _send(self, send: Send) -> None:
        has_started = False
        try:
            while True:
                news = await self._inbox.take(ALIVE_SECONDS)
                body = self._answer.event(news) if news else ALIVE
                if not has_started:
                    await start(send, 200, b"text/event-stream; charset=utf-8")
                    has_started = True
                if self._inbox.is_over:
                    break
                # News may come while the client is slow to take this event.
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": body + self._answer.last_event() + self._end})
        except Exception as error:
            if not has_started:
                return await self._refuse(error, send)
            if isinstance(error, DisconnectedError):
                raise
            failure = as_api_error(error)
            await send({"type": "http.response.body", "body": self._failure + as_event({"error": failure.fields})})
        return None
