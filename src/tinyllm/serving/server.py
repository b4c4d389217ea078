"""Runs the application on a socket until a signal, and lets running texts end before the server does."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tinyllm.errors import UsageError
from tinyllm.serving.deliveries import Deliveries
from tinyllm.serving.limits import Limits
from tinyllm.serving.models import Models
from tinyllm.serving.protocol import BoundedProtocol

SWITCH_SECONDS = 0.001
"""Longest time that one thread holds Python's lock while another waits for it."""


def bind(host: str, port: int) -> socket.socket:
    """A socket on the first address of `host`; port 0 takes a free one. Raises UsageError if that is impossible.

    It accepts connections when the server is ready, and refuses them before.
    """
    if not 0 <= port < 2**16:  # getaddrinfo would take the remainder
        raise UsageError(f"cannot listen on {host}, port {port}: a port is 0 to 65535; choose another host or port")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # elsewhere the option would let two servers share a port
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
        return bound
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot listen on {host}, port {port}: {reason}; choose another host or port") from None


def address_of(bound: socket.socket, host: str) -> str:
    """The URL of a listening socket, with the name that it was given."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}"


class Server(uvicorn.Server):
    """uvicorn with an end that loses no text: at a signal the schedulers drain, then the connections close."""

    def __init__(
        self, app: ASGIApp, models: Models, deliveries: Deliveries, limits: Limits, on_ready: Callable[[], None]
    ) -> None:
        connection: Any = partial(BoundedProtocol, limits=limits, idle={}, sending={})
        super().__init__(
            uvicorn.Config(
                app,
                http=connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=limits.idle_seconds,
                timeout_graceful_shutdown=limits.closing_seconds,
            )
        )
        # Bad requests are answered; a line for each would let anyone fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._models = models
        self._deliveries = deliveries
        self._limits = limits
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept connections."""
        self._deliveries.open()
        for model in self._models:
            model.scheduler.start()
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts no more connections, lets running texts end, stops the others, and closes all connections."""
        for server in self.servers:
            server.close()
        self._models.close()
        await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        """Drains all schedulers at once, each in a thread of its own."""
        schedulers = [model.scheduler for model in self._models]
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max(1, len(schedulers)), "drain") as pool:
            ends = [loop.run_in_executor(pool, each.drain, self._limits.drain_seconds) for each in schedulers]
            await asyncio.gather(*ends)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end of the server; a second signal cuts the running texts off, with an error for each."""
        if self.should_exit:
            for model in self._models:
                threading.Thread(target=model.scheduler.drain, args=(0,), daemon=True).start()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends the server at SIGINT, SIGTERM and SIGHUP; uvicorn would raise them again when it has ended.

        SIGHUP has no effect on a process that ignores it, as after `nohup`.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Python allows handlers in the main thread alone
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(server: Server, bound: socket.socket) -> None:
    """Runs the server until a signal ends it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        server.run([bound])
    finally:
        sys.setswitchinterval(before)
