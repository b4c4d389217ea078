"""Requests that are too large, nested, wrong or not allowed: each is refused quickly, in OpenAI's form."""

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from server_process import KEY, ServerProcess, read_all, request, status_of

Tell = Callable[[str], None]
MEBIBYTE = 2**20
CHUNKED = request("POST", "/v1/completions", b"", "Content-Type: application/json", "Transfer-Encoding: chunked")


def endless_chunks(server: ServerProcess) -> bytes:
    """The answer to a chunked body that goes on until the server closes the connection."""
    with server.connect() as connection:
        connection.sendall(CHUNKED)
        is_answered = threading.Event()

        def send() -> None:
            with suppress(OSError):
                while not is_answered.is_set():
                    connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        try:
            return connection.recv(65536)
        finally:
            is_answered.set()
            connection.close()
            sender.join()


def ask(content: bytes) -> Callable[[ServerProcess], bytes]:
    """A function that sends bytes and returns the first part of the answer."""

    def send(server: ServerProcess) -> bytes:
        with server.connect() as connection:
            with suppress(ConnectionError):
                connection.sendall(content)
            with suppress(ConnectionError):
                return connection.recv(65536)
            return b""

    return send


OVERSIZED: dict[str, tuple[Callable[[ServerProcess], bytes], int]] = {
    "body of 1 MiB + 1": (ask(request("POST", "/v1/completions", b" " * (MEBIBYTE + 1))), 413),
    "chunked body of 1 MiB + 1": (ask(CHUNKED + b"100001\r\n" + b" " * (MEBIBYTE + 1) + b"\r\n0\r\n\r\n"), 413),
    "endless chunked body": (endless_chunks, 413),
    "100,000 headers": (ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100_000 + b"\r\n"), 431),
    "endless header": (ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 4 * MEBIBYTE), 431),
    "JSON 10,000 deep": (ask(request("POST", "/v1/completions", b'{"prompt":' + b"[" * 10_000)), 400),
    "JSON of 1 MiB of brackets": (ask(request("POST", "/v1/completions", b"[]" * (MEBIBYTE // 2))), 400),
    "a prompt of 1 MiB": (ask(request("POST", "/v1/completions", b'{"prompt":"%b"}' % (b"x" * (MEBIBYTE - 20)))), 400),
    "200,000 ids": (ask(request("POST", "/v1/completions", b'{"prompt":[%b1]}' % (b"1, " * 200_000))), 400),
}


@pytest.mark.parametrize("name", OVERSIZED)
@pytest.mark.promise("20 oversized requests: 4xx within 1 s, memory +20 MiB at most", fast=2, full=50)
def test_an_oversized_request_is_refused_at_once(
    name: str, count: int, tell: Tell, server: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault campaign", {"promise": f"20 {name}: 4xx within 1 s, memory +20 MiB at most"})
    send, status = OVERSIZED[name]
    before = server.memory_bytes()
    slowest, num_lost = 0.0, 0
    for _ in range(count):
        begin = time.monotonic()
        answer = send(server)
        slowest = max(slowest, time.monotonic() - begin)
        # A reset may overtake the answer while the sender is still sending its head.
        num_lost += not answer and status == 431
        assert status_of(answer) == status or (not answer and status == 431)
    growth = (server.memory_bytes() - before) / MEBIBYTE
    assert slowest < 1
    assert growth <= 20
    with server.client() as client:
        assert client.get("/health").status_code == 200
    tell(f"{status}; the slowest took {slowest * 1000:.0f} ms, memory {growth:+.1f} MiB, {num_lost} answers reset")


WRONG_VALUES: tuple[Any, ...] = (
    -1,
    -1e30,
    1e30,
    2**64,
    "x",
    "",
    [],
    {},
    [None],
    [[]],
    {"a": 1},
    True,
    [1.5],
    "0",
    "é" * 2000,
)


def is_right(name: str, value: object) -> bool:
    """Whether a value of `WRONG_VALUES` is allowed for a parameter."""
    if name in ("echo", "stream", "logprobs") and isinstance(value, bool):
        return name != "logprobs"
    if name == "prompt":
        return value in ("x", "", "0")
    if name == "user":
        return isinstance(value, str) and len(value) <= 1000
    if name == "stop":
        return value in ("x", "0") or value == []
    if name == "logit_bias":
        return value == {}
    return name in ("top_k", "seed") and type(value) is int and value == -1


def bad_bodies(count: int) -> list[dict[str, Any]]:
    """Requests with one wrong parameter each, in a fixed order of chance."""
    names = [
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "best_of",
        "stream",
        "logprobs",
        "echo",
        "stop",
        "seed",
    ]
    names += ["presence_penalty", "frequency_penalty", "logit_bias", "top_k", "min_p", "repetition_penalty", "user"]
    names += ["stream_options", "model", "temprature", "functions", "__proto__", ""]
    chance = random.Random(18)
    bodies: list[dict[str, Any]] = []
    while len(bodies) < count:
        name, value = chance.choice(names), chance.choice(WRONG_VALUES)
        small = name in ("presence_penalty", "frequency_penalty", "temperature") and value is not True and value == -1
        if not is_right(name, value) and not (small and name != "temperature"):
            bodies.append({"prompt": "Once", "max_tokens": 1} | {name: value})
    return bodies


@pytest.mark.promise("20 bad parameters: all 4xx in OpenAI's form", fast=100, full=300)
def test_every_bad_parameter_is_refused_in_openai_s_form(count: int, tell: Tell, server: ServerProcess) -> None:
    with server.client() as client:
        for body in bad_bodies(count):
            response = client.post("/v1/completions", json=body)
            assert 400 <= response.status_code < 500, body
            error = response.json()["error"]
            assert set(error) - {"values"} == {"message", "type", "param", "code"}
            assert error["type"] == "invalid_request_error"
            assert 0 < len(error["message"]) < 500
            assert "\n" not in error["message"]
    assert len(server.said) == 1, "a bad request is in the log"
    tell("all 400 or 404")


ROUTES = [
    ("GET", "/v1/models", 200),
    ("GET", "/v1/models/storybook", 200),
    ("POST", "/v1/completions", 200),
    ("POST", "/v1/chat/completions", 400),
    ("POST", "/tokenize", 400),
    ("POST", "/detokenize", 400),
    ("GET", "/metrics", 200),
    ("GET", "/nothing", 404),
    ("GET", "/studio/api/library", 200),
    ("GET", "/studio/api/run?id=x", 404),
    ("GET", "/studio/api/metrics?id=x", 404),
    ("GET", "/studio/api/samples?id=x", 404),
    ("GET", "/studio/api/run/events?id=x", 404),
    ("GET", "/studio/api/shards?id=x", 404),
    ("GET", "/studio/api/documents?id=x", 404),
    ("GET", "/studio/api/search?id=x&text=a", 404),
    ("GET", "/studio/api/statistics?id=x", 404),
    ("POST", "/studio/api/models/load", 400),
    ("POST", "/studio/api/pieces", 400),
    ("POST", "/studio/api/generate", 200),
    ("POST", "/studio/api/next", 400),
    ("POST", "/studio/api/trace", 400),
]
OPEN = [
    ("GET", "/", 200),
    ("GET", "/studio/page/index.html", 200),
    ("GET", "/health", 200),
    ("GET", "/docs", 200),
    ("GET", "/openapi.json", 200),
]


@pytest.mark.promise("20 every route x no key, wrong, right; foreign Host and Origin", fast=1, full=10)
def test_every_route_asks_for_key_host_and_origin(
    count: int, tell: Tell, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server("--api-key", KEY)
    num_requests = 0

    def status(client: httpx.Client, method: str, path: str, **headers: str) -> int:
        nonlocal num_requests
        num_requests += 1
        body = {"json": {"prompt": "Once", "max_tokens": 1}} if method == "POST" else {}
        return client.request(method, path, headers=headers, **body).status_code  # type: ignore[arg-type]

    with server.client() as client:
        for _ in range(count):
            for method, path, right in ROUTES + OPEN:
                is_open = (method, path, right) in OPEN
                for wrong in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": f"Bearer {KEY}x"}):
                    assert status(client, method, path, **wrong) == (right if is_open else 401)
                key = {"Authorization": f"Bearer {KEY}"}
                assert status(client, method, path, **key) == right
                assert status(client, method, path, **key, Host="evil.example") == 403
                assert status(client, method, path, **key, Origin="http://evil.example") == 403
                assert status(client, method, path, **key, Origin=server.url) == right
    assert KEY not in server.output
    tell(f"{num_requests} requests")


def test_a_body_can_be_read_after_the_answer_to_it(server: ServerProcess) -> None:
    """A client that sends a large body first and reads then gets the answer, not a reset."""
    with server.connect() as connection:
        connection.sendall(request("POST", "/v1/completions", json.dumps({"prompt": "x" * MEBIBYTE}).encode()))
        assert status_of(read_all(connection)) == 413
