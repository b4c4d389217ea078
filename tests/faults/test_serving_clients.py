"""Clients that go away, trickle, or never read, each against a server that serves others meanwhile."""

import json
import random
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from server_process import ServerProcess, read_all, request, status_of

Start = Callable[..., ServerProcess]
Tell = Callable[[str], None]
NO_END = {"1": -100, "2": -100}
"""A bias against BOS and EOS, so that a text is long."""
QUICK = {"request_seconds": 3, "write_seconds": 3, "idle_seconds": 3}
MEBIBYTE = 2**20


def long_request(stream: bool, **more: object) -> bytes:
    """A request for a long text."""
    body = {"prompt": "Once upon a time", "max_tokens": 16_000, "logit_bias": NO_END, "stream": stream, **more}
    return request("POST", "/v1/completions", json.dumps(body).encode())


def close_hard(connection: socket.socket) -> None:
    """Closes by a reset instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.promise("20 disconnects: stopped within 1 s, no slot or descriptor lost", fast=50, full=500)
def test_a_client_that_goes_away_frees_its_slot(count: int, tell: Tell, server: ServerProcess) -> None:
    chance = random.Random(15)
    server.wait_until_idle()
    num_files = server.num_files()
    slowest = 0.0
    for number in range(count):
        connection = server.connect()
        connection.sendall(long_request(stream=number % 3 > 0))
        if number % 3 == 1:
            connection.recv(1)
        else:
            time.sleep(chance.random() * 0.05)
        (close_hard if number % 2 else socket.socket.close)(connection)
        begin = time.monotonic()
        server.wait_until_idle()
        slowest = max(slowest, time.monotonic() - begin)
    assert slowest < 1
    wait_for_files(server, num_files)
    tell(f"the slowest stopped after {slowest:.2f} s")


def wait_for_files(server: ServerProcess, expected: int) -> None:
    """Waits until the server has no more open descriptors than expected, beside that of the last question."""
    end = time.monotonic() + 10
    while server.num_files() > expected:
        assert time.monotonic() < end, "a descriptor is lost"
        time.sleep(0.05)


def p95(server: ServerProcess, seconds: float = 2) -> float:
    """The 95th percentile of the time of short requests, one after the other."""
    times: list[float] = []
    end = time.monotonic() + seconds
    with server.client() as client:
        while time.monotonic() < end or len(times) < 20:
            begin = time.monotonic()
            response = client.post("/v1/completions", json={"prompt": "Once", "max_tokens": 4})
            times.append(time.monotonic() - begin)
            assert response.status_code == 200
    return statistics.quantiles(times, n=20)[-1]


@contextmanager
def trickling(server: ServerProcess, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have sent a part of a request: nothing, a part of a head, or a part of a body."""
    parts = (b"", b"POST /v1/completions HTTP/1.1\r\nHost: loc", request("POST", "/tokenize", b" " * 1000)[:-900])
    connections = [server.connect() for _ in range(count)]
    for number, connection in enumerate(connections):
        connection.sendall(parts[number % 3])
        connection.setblocking(False)
    yield connections
    for connection in connections:
        connection.close()


@pytest.mark.promise("20 trickling connections: closed within 30 s, p95 of others at most doubles", fast=60, full=200)
def test_slow_connections_are_closed_and_disturb_nobody(
    request: pytest.FixtureRequest, count: int, tell: Tell, start_server: Start
) -> None:
    is_full = request.config.getoption("--faults") == "full"
    server = start_server(limits=None if is_full else QUICK)
    p95(server)
    alone = p95(server)
    with trickling(server, count) as connections:
        begin = time.monotonic()
        beside = p95(server)
        is_open = dict.fromkeys(connections, True)
        while any(is_open.values()):
            assert time.monotonic() - begin < 30, f"{sum(is_open.values())} connections are open"
            for connection in [each for each in connections if is_open[each]]:
                is_open[connection] = send_byte(connection)
            time.sleep(0.1)
        seconds = time.monotonic() - begin
    # Another program on the machine may take a few milliseconds at any time.
    assert beside <= 2 * alone + 0.02
    tell(f"closed after {seconds:.1f} s; p95 {alone * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside them")


def send_byte(connection: socket.socket) -> bool:
    """Sends one byte of a request that never ends; returns whether the connection is open."""
    try:
        connection.send(b"a")
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.mark.promise("20 clients that never read: 1 MiB at most, dropped within 60 s", fast=4, full=20)
def test_a_client_that_never_reads_costs_little_and_is_dropped(
    request: pytest.FixtureRequest, count: int, tell: Tell, start_server: Start
) -> None:
    is_full = request.config.getoption("--faults") == "full"
    server = start_server("--max-slots", 64, limits=None if is_full else QUICK)
    with server.client() as client:  # the engine's slots stay, whoever uses them
        body = {"prompt": "Once", "n": 64, "max_tokens": 300, "logit_bias": NO_END}
        assert client.post("/v1/completions", json=body).status_code == 200
    before, num_files = server.memory_bytes(), server.num_files()
    begin, peak = time.monotonic(), before
    connections = [server.connect() for _ in range(count)]
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(long_request(stream=True, logprobs=5, n=4))
    time.sleep(0.5)
    while server.num_files() > num_files:
        assert time.monotonic() - begin < 60, "not dropped"
        peak = max(peak, server.memory_bytes())
        time.sleep(0.1)
    seconds, cost = time.monotonic() - begin, (peak - before) / count / MEBIBYTE
    for connection in connections:
        connection.close()
    assert cost <= 1
    server.wait_until_idle()
    tell(f"{cost:.2f} MiB each, dropped after {seconds:.0f} s")


def test_answers_to_slow_requests_say_why(start_server: Start) -> None:
    server = start_server(limits=QUICK)
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        assert status_of(read_all(connection)) == 408
