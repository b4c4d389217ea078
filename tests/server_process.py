"""Starts `tinyllm serve` or `tinyllm studio` in a process of its own, and speaks to it by raw sockets."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

PATIENCE_SECONDS = 120.0
PROGRAM = """
import sys
from functools import partial
from tinyllm.cli.app import main
from tinyllm.serving import service
service.Limits = partial(service.Limits, **{limits})
{more}
main(sys.argv[1:])
"""
WITH_TORCH = """
import torch
from tinyllm.cli import model_options
from tinyllm.loading import load_with_torch
torch.set_num_threads(1)
model_options.load = lambda model, **options: load_with_torch(model, device="cpu")
"""
"""Uses the PyTorch module as engine, so that no kernels are compiled; threads would wait for one another."""
ADDRESS_LINES = ("serving ", "the studio of ")
"""Beginnings of the line that names the server's address."""
KEY = "sk-the-key-of-this-test"


class ServerProcess:
    """A running `tinyllm serve`, or another command that serves; its output is in `lines`."""

    def __init__(
        self,
        cache: Path,
        *arguments: str,
        limits: dict[str, float] | None = None,
        command: str = "serve",
        more: str = "",
    ) -> None:
        """`limits` replaces fields of the server's `Limits`, so that a test need not wait for its deadlines.

        `more` are lines of Python that run in the server's process before the command.
        """
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache.parent), "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        port = [] if "--port" in arguments else ["--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(limits=limits or {}, more=more), command, *port, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(PATIENCE_SECONDS), self.output
        assert self.process.poll() is None, self.output
        (line,) = [line for line in self.lines if line.startswith(ADDRESS_LINES)]
        self.url = line.rpartition(" at ")[2].split()[0].split("/v1")[0]
        self.port = int(self.url.rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(ADDRESS_LINES):
                self._ready.set()
        self._ready.set()

    @property
    def output(self) -> str:
        """Everything that the server has printed."""
        return "".join(self.lines)

    @property
    def said(self) -> list[str]:
        """The lines without those about compiling, which only the first servers print."""
        return [line for line in self.lines if not line.startswith(("compiling ", "another process compiles "))]

    def end(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Sends a signal and waits; returns the exit code. Kills a server that hangs, and fails."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 60) -> int:
        """Waits for the end; returns the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no end within {seconds} s: {self.output}") from None
        self._reader.join(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def stop(self) -> None:
        """Ends the process if it runs, in any way."""
        if self.process.poll() is None:
            self.process.kill()
            self.wait()

    def client(self, key: str | None = None, seconds: float = 60) -> httpx.Client:
        """A client with the key."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=seconds, trust_env=False)

    def connect(self, seconds: float = 60) -> socket.socket:
        """A connection of its own."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def send(self, content: bytes, seconds: float = 60) -> bytes:
        """Everything that the server answers to `content` until it closes the connection."""
        with closing(self.connect(seconds)) as connection:
            with suppress(ConnectionError):  # the server may refuse before it has read all
                connection.sendall(content)
            return read_all(connection)

    def memory_bytes(self) -> int:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def num_files(self) -> int:
        """Open descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a measurement over all series with these labels."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        kept = [line for line in found if all(f'{key}="{value}"' in line for key, value in labels.items())]
        return sum(float(line.rpartition(" ")[2]) for line in kept)

    def wait_until_idle(self, seconds: float = 10) -> float:
        """Waits until no text is generated or queued; returns the seconds that it took."""
        begin = time.monotonic()
        while self.metric("tinyllm_running_texts") + self.metric("tinyllm_waiting_texts"):
            assert time.monotonic() - begin < seconds, "texts are still generated"
            time.sleep(0.01)
        return time.monotonic() - begin


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the end of the connection, or to its reset."""
    received = b""
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            received += part
    return received


def request(method: str, path: str, body: bytes = b"", *headers: str, host: str = "localhost") -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def status_of(answer: bytes) -> int:
    """The status of a response; 0 for none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.fixture
def start_server(user_cache: Path) -> Iterator[Callable[..., ServerProcess]]:
    """A function that starts a server with arguments; all are stopped after the test."""
    started: list[ServerProcess] = []

    def start(*arguments: object, limits: dict[str, float] | None = None) -> ServerProcess:
        started.append(ServerProcess(user_cache, *map(str, arguments), limits=limits))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def server(user_cache: Path) -> Iterator[ServerProcess]:
    """A server of the bundled model, for the tests of a module."""
    server = ServerProcess(user_cache)
    yield server
    server.stop()
