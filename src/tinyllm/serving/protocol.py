"""The HTTP protocol of uvicorn with bounds: on heads, on time to send and to read, and on open connections.

Every connection has at most one running timer for each direction:

    a request is being sent    `request_seconds` for its head and body together, then 408 and the end
    an answer is not read      `write_seconds` since the buffer is full, or since the connection is closing
    nothing happens            uvicorn's keep-alive timer

A client may send requests before earlier ones are answered; answers and refusals leave in the order of the requests.
"""

import asyncio
import socket
from typing import Any, NoReturn

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tinyllm.serving.errors import SERVER, ApiError
from tinyllm.serving.limits import Limits
from tinyllm.serving.responses import last_response

RAW_BODIES = 8
"""Bytes of a message on the wire, in largest bodies: chunks have heads of their own."""
MOST_AHEAD = 16
"""Requests that a client may send before an earlier one is answered."""
HALF_CLOSED_SECONDS = 0.25
"""Time to answer a client that will send nothing more. It looks like one that went away, whose texts should end."""


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
        idle: "dict[BoundedProtocol, None]",
        sending: "dict[BoundedProtocol, None]",
    ) -> None:
        """`idle` holds the connections without a request, `sending` those that are sending one, longest first.

        All connections share both.
        """
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._idle, self._sending = idle, sending
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        """The request that is answered, or was last; `cycle` is the newest one and may wait in `pipeline`."""
        self._in_head = True
        self._num_bytes = self._num_head_bytes = self._num_headers = 0
        self._error: ApiError | None = None
        """The reason why a callback stopped the parser."""
        self._refusal: ApiError | None = None
        """The last answer of the connection. Nothing more is parsed."""

    @property
    def is_answering(self) -> bool:
        """Whether a request waits for the end of its answer."""
        return self._running is not None and not self._running.response_complete

    @property
    def is_arriving(self) -> bool:
        """Whether the body of the running request is still arriving."""
        return not self._in_head and self.cycle is self._running

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bounds the connection's memory, and the number of connections."""
        super().connection_made(transport)
        opened = transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.send_buffer_bytes)
        self._begin_sending()
        if len(self.connections) > self._limits.num_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers and tells the running request, which uvicorn does for the newest alone."""
        self._end_sending()
        self._stop_write_timer()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        if self._running is not None and self.is_answering:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Gives running requests `HALF_CLOSED_SECONDS` to end; returns whether there are any."""
        if not self.is_answering or self.is_arriving:
            return False
        self.cycle.keep_alive = False
        self.loop.call_later(HALF_CLOSED_SECONDS, self._close)
        return True

    def data_received(self, data: bytes) -> None:
        """Parses `data`, and refuses a request that exceeds a bound."""
        if self.transport.is_closing() or self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        if self._timer is None and self._in_head:
            self._begin_sending()
        self._num_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.refuse(self._error or ApiError(400, "this is not a valid HTTP request"))
            return
        if self._in_head and self._num_bytes > self._limits.head_bytes:
            self.refuse(self._head_too_large())
        elif self._num_bytes > self._limits.head_bytes + RAW_BODIES * self._limits.body_bytes:
            self.refuse(ApiError(413, "the request is too large", code="request_too_large"))

    def on_message_begin(self) -> None:
        """Starts counting the head of a request."""
        if len(self.pipeline) >= MOST_AHEAD:
            self._stop(self._too_far_ahead())
        self._num_headers = self._num_head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Counts the first line."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Counts headers. Trailers after a body are counted and dropped."""
        self._num_headers += 1
        self._count_head(len(name) + len(value))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begins the body."""
        if self.parser.get_method() == b"CONNECT":
            self._stop(ApiError(405, "this server is no proxy: it does not accept CONNECT"))
        if self.parser.should_upgrade():
            return  # `_parse` gives this request to the parser again
        self._in_head = False
        super().on_headers_complete()
        self._read_on()

    def on_body(self, body: bytes) -> None:
        """Adds to the body."""
        super().on_body(body)
        if self.cycle is not self._running:
            self._read_on()
            if sum(len(cycle.body) for cycle, _ in self.pipeline) > self._limits.body_bytes:
                self._stop(self._too_far_ahead())

    def on_message_complete(self) -> None:
        """Ends the request: the client's time to send is over."""
        if self.parser.should_upgrade():
            return
        self._in_head = True
        self._num_bytes = 0
        self._end_sending()
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            self._idle[self] = None

    def on_response_complete(self) -> None:
        """Answers the next request, or refuses it."""
        super().on_response_complete()
        if self.transport.is_closing() or self.is_answering:
            return
        self._idle[self] = None
        if self._refusal is not None:
            self._send_refusal(self._refusal)

    def refuse(self, error: ApiError) -> None:
        """Sends an error in place of the newest request's answer, after those before it, and closes the connection.

        A request whose answer has begun ends without its rest.
        """
        self._refusal = error
        self._end_sending()
        if not self._in_head and self.cycle is not self._running:
            self.pipeline.popleft()
        if self.is_arriving and self.cycle.response_started:
            self._close()
        elif self.is_arriving or not self.is_answering:
            self._send_refusal(error)

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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _unset_keepalive_if_required(self) -> None:
        self._idle.pop(self, None)
        super()._unset_keepalive_if_required()

    def _parse(self, data: bytes) -> None:
        """Parses `data`, and a request that offers another protocol again, without the offer.

        The parser stops after the head of such a request, because its body would be in the other protocol.
        """
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._head_without_offer() + data[offer.args[0] :]

    def _head_without_offer(self) -> bytes:
        """The head of the request that was parsed last, without its Upgrade header."""
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _read_on(self) -> None:
        """Reads while earlier requests are answered: only a connection that is read tells that its client went away."""
        if self.is_answering and self.cycle is not self._running:
            self.flow.resume_reading()

    def _count_head(self, num_bytes: int) -> None:
        self._num_head_bytes += num_bytes
        if self._num_head_bytes > self._limits.head_bytes or self._num_headers > self._limits.num_headers:
            self._stop(self._head_too_large())

    def _stop(self, error: ApiError) -> NoReturn:
        """Stops the parser; `data_received` refuses with `error`."""
        self._error = error
        raise httptools.HttpParserError(str(error))

    def _send_refusal(self, error: ApiError) -> None:
        self.transport.write(last_response(error))
        self._close()

    def _make_room(self) -> None:
        """Closes the connection that has been idle for longest, else the one that has been sending for longest."""
        longest = next(iter(self._idle), None) or next(
            each for each in self._sending if each.is_arriving or not each.is_answering
        )
        if longest in self._sending:
            message = "the server has too many open connections"
            longest.refuse(ApiError(503, message, kind=SERVER, headers={"Retry-After": "1"}))
        longest._unset_keepalive_if_required()
        longest.transport.abort()

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

    def _too_far_ahead(self) -> ApiError:
        message = f"more than {MOST_AHEAD} requests or {self._limits.body_bytes:,} bytes wait for an earlier answer"
        return ApiError(503, message, kind=SERVER, headers={"Retry-After": "1"})
