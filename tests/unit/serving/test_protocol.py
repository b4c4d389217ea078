"""Connections that no client library would open: slow, endless, oversized, silent. Deadlines are short here."""

import json
import socket
import time
from contextlib import closing, suppress
from typing import Any

import pytest

from server_process import read_all, request, status_of
from serving_stub import TEXT, StubScheduler, connect, running, served
from tinyllm.serving.limits import Limits

QUICK = Limits(request_seconds=0.5, write_seconds=0.5, idle_seconds=1, drain_seconds=1, closing_seconds=1)
BODY = json.dumps({"prompt": "Once"}).encode()


def ask(port: int, content: bytes) -> bytes:
    """All that the server answers until it closes."""
    with closing(connect(port)) as connection:
        connection.sendall(content)
        return read_all(connection)


def error_of(answer: bytes) -> Any:
    """The error object of a response."""
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


def test_a_request_in_one_piece_or_in_bytes_is_answered() -> None:
    content = request("POST", "/v1/completions", BODY, "Connection: close")
    with running() as (port, _), closing(connect(port)) as connection:
        assert TEXT.encode() in ask(port, content)
        for byte in content:
            connection.sendall(bytes([byte]))
        assert TEXT.encode() in read_all(connection)


def test_a_connection_serves_requests_one_after_the_other() -> None:
    with running() as (port, _), closing(connect(port)) as connection:
        for _ in range(3):
            connection.sendall(request("GET", "/health"))
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            assert status_of(answer) == 200
        connection.sendall(request("GET", "/health") * 3 + request("GET", "/health", b"", "Connection: close"))
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == 4


@pytest.mark.parametrize(
    "content",
    [b"", b"GET", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", request("POST", "/tokenize", BODY)[:-1]],
    ids=["nothing", "half a line", "half a header", "half a body"],
)
def test_a_request_that_does_not_end_is_answered_with_408(content: bytes) -> None:
    with running(limits=QUICK) as (port, _):
        begin = time.monotonic()
        answer = ask(port, content)
    assert 0.4 < time.monotonic() - begin < 5
    assert status_of(answer) == 408
    assert error_of(answer)["code"] == "request_timeout"


def test_a_body_that_trickles_has_the_same_time() -> None:
    with running(limits=QUICK) as (port, _), closing(connect(port)) as connection:
        connection.sendall(request("POST", "/v1/completions", b"x" * 1000)[:-1000])
        begin = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            while time.monotonic() - begin < 10:
                connection.sendall(b" ")
                time.sleep(0.05)
        assert 0.4 < time.monotonic() - begin < 5


def test_an_idle_connection_is_closed_without_an_answer() -> None:
    with running(limits=QUICK) as (port, _), closing(connect(port)) as connection:
        connection.sendall(request("GET", "/health"))
        begin = time.monotonic()
        assert read_all(connection).count(b"HTTP/1.1") == 1
        assert 0.9 < time.monotonic() - begin < 5


GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
POST = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\n"
HEADS = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400),
    "no request": (b"GARBAGE\r\n\r\n", 400),
    "unknown version": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "length is no number": (GET + b"Content-Length: x\r\n\r\n", 400),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "length and chunks": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "no host": (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "two hosts": (GET + b"Host: localhost\r\n\r\n", 400),
    "101 headers": (GET + b"A: b\r\n" * 101 + b"\r\n", 431),
    "100,000 headers": (GET + b"A: b\r\n" * 100_000 + b"\r\n", 431),
    "endless header": (GET + b"A: " + b"b" * 200_000, 431),
    "endless line": (b"GET /" + b"a" * 200_000, 431),
    "long header": (GET + b"A: " + b"b" * 33_000 + b"\r\n\r\n", 431),
    "long line": (b"GET /" + b"a" * 33_000 + GET.removeprefix(b"GET /health") + b"\r\n", 431),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "unknown path": (b"GET /" + b"a" * 2000 + GET.removeprefix(b"GET /health") + b"\r\n", 404),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_wrong_or_too_large_is_refused_at_once(name: str) -> None:
    content, status = HEADS[name]
    with running() as (port, _):
        begin = time.monotonic()
        with closing(connect(port)) as connection:
            with suppress(ConnectionError):  # refused before all of it was sent
                connection.sendall(content)
            answer = read_all(connection)
        assert time.monotonic() - begin < 2
        if answer or status != 431:  # a reset may overtake the answer to a sender that does not stop
            assert status_of(answer) == status
            assert error_of(answer)["type"] == "invalid_request_error"


@pytest.mark.parametrize("chunked", [False, True])
def test_the_answer_to_a_body_that_is_too_large_can_be_read(chunked: bool) -> None:
    size = 2**20 + 1
    if chunked:
        head = request("POST", "/v1/completions", b"", "Content-Type: application/json", "Transfer-Encoding: chunked")
        content = head + b"%x\r\n" % size + b" " * size + b"\r\n0\r\n\r\n"
    else:
        content = request("POST", "/v1/completions", b" " * size)
    with running() as (port, _):
        begin = time.monotonic()
        answer = ask(port, content)
    assert status_of(answer) == 413
    assert error_of(answer)["code"] == "request_too_large"
    assert time.monotonic() - begin < 2


def test_a_client_that_never_reads_is_dropped() -> None:
    text = "a lively girl " * 40
    scheduler = StubScheduler(text=text, seconds=0.05)
    body = json.dumps({"prompt": "Once", "n": 100, "stream": True, "max_tokens": 400, "logprobs": 5}).encode()
    with running(served(scheduler=scheduler), limits=QUICK) as (port, server), closing(connect(port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request("POST", "/v1/completions", body))
        begin = time.monotonic()
        time.sleep(0.3)
        while server.server_state.connections:
            assert time.monotonic() - begin < 10
            time.sleep(0.01)
    assert scheduler.cancelled == 1


def test_the_connection_that_sends_longest_makes_room() -> None:
    with running(limits=Limits(num_connections=5)) as (port, _):
        slow = [connect(port) for _ in range(5)]
        time.sleep(0.1)
        assert status_of(ask(port, request("GET", "/health", b"", "Connection: close"))) == 200
        assert b" 503 " in read_all(slow[0])
        for connection in slow:
            connection.close()


def test_a_signal_lets_a_stream_end_and_refuses_new_connections() -> None:
    scheduler = StubScheduler(seconds=0.2)
    body = json.dumps({"prompt": "Once", "stream": True}).encode()
    with running(served(scheduler=scheduler)) as (port, server), closing(connect(port)) as connection:
        connection.sendall(request("POST", "/v1/completions", body))
        begin = connection.recv(10)
        server.should_exit = True
        assert (begin + read_all(connection)).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        with pytest.raises(ConnectionError):
            connect(port)
    assert scheduler.drained_seconds == 25
