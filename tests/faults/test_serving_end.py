"""SIGTERM under load lets texts end or tells why they do not; SIGKILL leaves nothing behind."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from server_process import ServerProcess, read_all, request

Start = Callable[..., ServerProcess]
NUM_STREAMS = 16
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


def open_streams(server: ServerProcess, max_tokens: int) -> list[socket.socket]:
    """Connections whose texts are generated or wait for a slot."""
    body = {"prompt": "Once", "max_tokens": max_tokens, "logit_bias": {"1": -100, "2": -100}, "stream": True}
    connections = [server.connect() for _ in range(NUM_STREAMS)]
    for connection in connections:
        connection.sendall(request("POST", "/v1/completions", json.dumps(body).encode()))
    return connections


def read_together(connections: list[socket.socket]) -> list[bytes]:
    """All that arrives on each connection."""
    answers = [b""] * len(connections)

    def read(number: int) -> None:
        answers[number] = read_all(connections[number])
        connections[number].close()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.promise("20 SIGTERM under load: ended within 30 s, no stream cut without an error", fast=1, full=10)
@pytest.mark.parametrize("max_tokens", [300, 16_000])
def test_a_signal_under_load_cuts_no_stream_without_an_error(
    max_tokens: int, count: int, tell: Callable[[str], None], start_server: Start
) -> None:
    slowest, num_done, num_told, num_refused = 0.0, 0, 0, 0
    for _ in range(count):
        server = start_server("--max-slots", 8, limits={"drain_seconds": 20 if max_tokens == 300 else 1})
        connections = open_streams(server, max_tokens)
        connections[0].recv(1, socket.MSG_PEEK)
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answers = read_together(connections)
        assert server.wait(30) == 0
        slowest = max(slowest, time.monotonic() - begin)
        for answer in answers:
            is_done, is_told = answer.endswith(END), b"shutting_down" in answer
            assert is_done != is_told, answer[-500:]
            num_done += is_done
            num_told += is_told and b" 200 OK" in answer
            num_refused += is_told and b" 503 " in answer
        assert len(server.said) == 1
    assert slowest < 30
    assert (num_told > 0) == (max_tokens == 16_000)
    tell(f"{num_done} texts ended, {num_told} cut with an error, {num_refused} refused; {slowest:.1f} s at most")


@pytest.mark.promise("20 SIGKILL of the server leaves nothing behind", fast=1, full=10)
def test_a_killed_server_leaves_nothing_behind(
    count: int, tell: Callable[[str], None], start_server: Start, user_cache: Path
) -> None:
    start_server().stop()  # compiles, if nothing did before
    files = sorted(user_cache.rglob("*"))
    for _ in range(count):
        server = start_server()
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        connections = open_streams(server, 16_000)
        connections[0].recv(1)
        assert children.read_text() == "", "no other process serves"
        server.process.kill()
        assert server.wait() == -signal.SIGKILL
        for connection in connections:
            with suppress(OSError):
                connection.close()
        again = start_server("--port", server.port)
        assert again.port == server.port
        again.stop()
    assert sorted(user_cache.rglob("*")) == files
    tell("no process, no file, and the port is free")
