"""Requests that are sent before an answer, offers of other protocols, and clients that leave."""

import json
import socket
import time
from contextlib import ExitStack, closing

import pytest

from server_process import read_all, request, status_of
from serving_stub import TEXT, StubScheduler, connect, running, served
from tinyllm.serving.limits import Limits

HEALTH = request("GET", "/health")
LAST = request("GET", "/health", b"", "Connection: close")
STREAM = request("POST", "/v1/completions", json.dumps({"prompt": "Once", "stream": True}).encode())
WHOLE = request("POST", "/v1/completions", json.dumps({"prompt": "Once"}).encode())
END_OF_STREAM = b"data: [DONE]\n\n\r\n0\r\n\r\n"
OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")


def slow_model() -> StubScheduler:
    """A scheduler whose text takes two seconds."""
    return StubScheduler(seconds=0.4)


def ask(port: int, *packets: bytes, seconds: float = 0.1) -> bytes:
    """All that the server answers to `packets`, which are sent `seconds` apart, until it closes."""
    with closing(connect(port)) as connection:
        for packet in packets:
            connection.sendall(packet)
            time.sleep(seconds)
        return read_all(connection)


def is_healthy(connection: socket.socket) -> bool:
    """Whether /health is answered; the connection stays open."""
    connection.sendall(HEALTH)
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(65536)
        if not part:
            return False
        answer += part
    return status_of(answer) == 200


@pytest.mark.parametrize("content", [WHOLE, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("ahead", [b"", HEALTH, request("POST", "/tokenize", b" " * 100_000)])
@pytest.mark.parametrize("seconds", [0, 0.2])
def test_a_client_that_goes_away_ends_its_text_whatever_it_sent_ahead(
    content: bytes, ahead: bytes, seconds: float
) -> None:
    scheduler = slow_model()
    with running(served(scheduler=scheduler)) as (port, server):
        with closing(connect(port)) as connection:
            connection.sendall(content if seconds else content + ahead)
            if seconds:
                time.sleep(seconds)
                connection.sendall(ahead)
            time.sleep(0.2)
        begin = time.monotonic()
        while server.server_state.connections or not scheduler.cancelled:
            assert time.monotonic() - begin < 1
            time.sleep(0.01)
        assert scheduler.cancelled == 1


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    ],
    ids=["garbage", "version", "headers", "path", "chunk"],
)
@pytest.mark.parametrize("seconds", [0, 0.2])
def test_a_refusal_is_the_last_answer(bad: bytes, status: int, seconds: float) -> None:
    with running(served(scheduler=StubScheduler(seconds=0.1))) as (port, _):
        packets = [STREAM, HEALTH + bad] if seconds else [STREAM + HEALTH + bad]
        answer = ask(port, *packets, seconds=seconds)
    head, _, last = answer.rpartition(b"HTTP/1.1 ")
    assert last.startswith(b"%d " % status)
    assert head.endswith(b'{"status":"ok"}')
    answered = head.partition(b"HTTP/1.1 200 OK\r\n")[2].partition(b"HTTP/1.1")[0]
    assert answered.endswith(END_OF_STREAM)
    assert TEXT.split()[-1].encode() in answered


def test_a_late_request_does_not_cut_a_stream() -> None:
    limits = Limits(request_seconds=0.5)
    with running(served(scheduler=slow_model()), limits=limits) as (port, _):
        answer = ask(port, STREAM, HEALTH[:-1])
    stream, _, refusal = answer.partition(END_OF_STREAM)
    assert status_of(stream) == 200
    assert status_of(refusal) == 408


def test_a_client_may_not_send_without_end_before_an_answer() -> None:
    large = request("POST", "/tokenize", b" " * 2**19)
    with running(served(scheduler=slow_model())) as (port, _):
        for ahead in (HEALTH * 10_000, large * 3):
            answer = ask(port, WHOLE, ahead)
            assert status_of(answer) == 200
            assert b"HTTP/1.1 503 " in answer
            assert answer.count(b"HTTP/1.1 ") <= 18


BODY = json.dumps({"content": "Once upon"}).encode()
SMUGGLED = request("GET", "/v1/models")


@pytest.mark.parametrize(
    "packets",
    [
        [request("POST", "/tokenize", BODY, *OFFER) + LAST],
        [request("POST", "/tokenize", BODY, *OFFER)[: -len(BODY)], BODY + LAST],
        [bytes([byte]) for byte in request("POST", "/tokenize", BODY, *OFFER)] + [LAST],
        [request("POST", "/tokenize", BODY, "Connection: upgrade", "Upgrade: websocket"), LAST],
    ],
    ids=["one packet", "body apart", "bytes", "websocket"],
)
def test_an_offer_of_another_protocol_is_ignored(packets: list[bytes]) -> None:
    with running() as (port, _):
        answer = ask(port, *packets, seconds=0.1 if len(packets) < 3 else 0.001)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b'"tokens":[633,675]' in answer
    assert answer.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize("apart", [False, True])
def test_a_body_after_an_offer_is_no_request(apart: bool) -> None:
    content = request("POST", "/tokenize", SMUGGLED, *OFFER)
    packets = [content[: -len(SMUGGLED)], SMUGGLED] if apart else [content]
    with running() as (port, _):
        answer = ask(port, *packets, LAST)
    assert answer.count(b"HTTP/1.1") == 2
    assert status_of(answer) == 400
    assert b'"object"' not in answer


def test_an_offer_without_a_body_is_answered() -> None:
    with running() as (port, _):
        answer = ask(port, request("GET", "/health", b"", *OFFER) * 2 + LAST)
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_head_is_answered_without_a_body() -> None:
    with running() as (port, _):
        answer = ask(port, request("HEAD", "/docs") + LAST)
    head, _, next_answer = answer.partition(b"\r\n\r\n")
    assert status_of(head) == status_of(next_answer) == 200
    assert b"content-length: " in head


def test_the_server_is_no_proxy() -> None:
    with running() as (port, _):
        answer = ask(port, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", SMUGGLED)
    assert status_of(answer) == 405
    assert answer.count(b"HTTP/1.1") == 1


def test_trailers_are_no_headers() -> None:
    chunked = b"%x\r\n%b\r\n0\r\nAuthorization: Bearer a\r\nConnection: upgrade\r\n\r\n" % (len(BODY), BODY)
    head = request("POST", "/tokenize", b"", "Content-Type: application/json", "Transfer-Encoding: chunked")
    with running() as (port, _):
        answer = ask(port, head + chunked + LAST)
    assert answer.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("content", [HEALTH, WHOLE, HEALTH + WHOLE, WHOLE + HEALTH])
def test_a_client_that_sends_nothing_more_is_answered(content: bytes) -> None:
    with running() as (port, server), closing(connect(port)) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        begin = time.monotonic()
        answer = read_all(connection)
        assert time.monotonic() - begin < 1
        assert answer.count(b"HTTP/1.1 200 OK") == (2 if len(content) > len(WHOLE) else 1)
        assert not server.server_state.connections


def test_idle_connections_make_room_the_longest_idle_first() -> None:
    with running(limits=Limits(num_connections=5)) as (port, _), ExitStack() as stack:
        idle = [stack.enter_context(connect(port)) for _ in range(4)]
        for connection in [*idle, idle[0]]:
            assert is_healthy(connection)
        with closing(connect(port)) as sending:
            sending.sendall(LAST[:10])
            time.sleep(0.1)
            assert status_of(ask(port, LAST)) == 200
            sending.sendall(LAST[10:])
            assert status_of(read_all(sending)) == 200
        assert idle[1].recv(1) == b""
        for connection in (idle[0], idle[2], idle[3]):
            assert is_healthy(connection)


def test_a_running_answer_never_makes_room() -> None:
    scheduler = slow_model()
    with running(served(scheduler=scheduler), limits=Limits(num_connections=2)) as (port, _), ExitStack() as stack:
        streams = [stack.enter_context(connect(port)) for _ in range(2)]
        for stream in streams:
            stream.sendall(STREAM)
        time.sleep(0.1)
        streams[0].sendall(HEALTH[:10])
        answer = ask(port)
        assert status_of(answer) == 503
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["type"] == "server_error"
        streams[0].sendall(HEALTH[10:])
        streams[1].sendall(LAST)
        assert END_OF_STREAM in read_all(streams[1])
        streams[0].shutdown(socket.SHUT_WR)
        assert END_OF_STREAM in read_all(streams[0])


def test_a_body_that_trickles_makes_room() -> None:
    with running(limits=Limits(num_connections=2)) as (port, _), ExitStack() as stack:
        slow = [stack.enter_context(connect(port)) for _ in range(2)]
        for connection in slow:
            connection.sendall(WHOLE[:-1])
        time.sleep(0.1)
        assert status_of(ask(port, LAST)) == 200
        assert b" 503 " in read_all(slow[0])
