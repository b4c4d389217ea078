"""The HTTP protocol of uvicorn with bounds: on heads, on time to send and to read, and on open connections.

Every connection has at most one running timer for each direction:

    a request is being sent    `request_seconds` for its head and body together, then 408 and the end
    an answer is not read      `write_seconds` since the buffer is full, or since the connection is closing
    nothing happens            uvicorn's keep-alive timer
"""

import asyncio
import socket
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tinyllm.serving.errors import ApiError
from tinyllm.serving.limits import Limits

RAW_BODIES = 8
"""Bytes of a message on the wire, in largest bodies: chunks have heads of their own."""
REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Busy"}


class BoundedProtocol(HttpToolsProtocol):
    """One connection with the bounds of `limits`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        sending: "dict[BoundedProtocol, None]",
    ) -> None:
        """`sending` holds the connections that are sending a request, longest first; all connections share it."""
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._sending = sending
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._num_bytes = 0
        self._num_headers = 0
        self._refusal: ApiError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bounds the connection's memory, and the number of connections."""
        super().connection_made(transport)
        opened = transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.send_buffer_bytes)
        self._begin_sending()
        if len(self.connections) > self._limits.num_connections:
            longest = next(iter(self._sending))
            longest.refuse(ApiError(503, "the server has too many open connections", headers={"Retry-After": "1"}))
            longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers."""
        self._end_sending()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses `data`, and refuses a request that exceeds a bound."""
        if self.transport.is_closing():
            return
        if self._timer is None and self._in_head:
            self._begin_sending()
        self._num_bytes += len(data)
        super().data_received(data)
        if self._refusal is None and self._num_bytes > self._limits.head_bytes and self._in_head:
            self.refuse(self._head_too_large())
        elif self._num_bytes > self._limits.head_bytes + RAW_BODIES * self._limits.body_bytes:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Starts counting the headers of a request."""
        self._num_headers = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Counts headers; the parser stops at an error."""
        self._num_headers += 1
        if self._num_headers > self._limits.num_headers:
            self._refusal = self._head_too_large()
            raise httptools.HttpParserError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begins the body."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Ends the request: the client's time to send is over."""
        self._in_head = True
        self._num_bytes = 0
        self._end_sending()
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answers what the parser refuses, in OpenAI's form."""
        self.refuse(self._refusal or ApiError(400, "this is not a valid HTTP request"))

    def refuse(self, error: ApiError) -> None:
        """Sends an error, unless an answer has begun, and closes the connection."""
        self._refusal = error
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = b"HTTP/1.1 %d %b\r\n" % (error.status, REASONS[error.status])
            pairs = {"content-type": "application/json", "content-length": str(len(error.body)), "connection": "close"}
            lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in (pairs | error.headers).items())
            self.transport.write(head + lines + b"\r\n" + error.body)
        self._close()

    def pause_writing(self) -> None:
        """The buffer is full: the client has a time to read."""
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_write_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection."""
        self._close()

    def shutdown(self) -> None:
        """Closes the connection when the server ends, after the running request."""
        super().shutdown()
        if self.transport.is_closing():
            self._start_write_timer()

    def _close(self) -> None:
        """Closes the connection when the client has read what is ready, or at the end of its time to read."""
        if not self.transport.is_closing():
            self.transport.close()
            self._start_write_timer()

    def _begin_sending(self) -> None:
        self._timer = self.loop.call_later(self._limits.request_seconds, self._too_slow)
        self._sending[self] = None

    def _end_sending(self) -> None:
        self._sending.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        message = f"the request did not arrive within {self._limits.request_seconds:g} seconds"
        self._end_sending()
        self.refuse(ApiError(408, message, code="request_timeout"))

    def _start_write_timer(self) -> None:
        self._stop_write_timer()
        self._write_timer = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _head_too_large(self) -> ApiError:
        message = f"the head is larger than {self._limits.head_bytes:,} bytes or {self._limits.num_headers} headers"
        return ApiError(431, message, code="head_too_large")
