"""Texts wait for the client that reads them, and a client that reads gets all of its text."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from served_engine import serving
from server_process import read_all, request
from serving_stub import connect
from tinyllm.config import SamplingConfig
from tinyllm.errors import ShuttingDownError
from tinyllm.generation.generator import Generator
from tinyllm.loading import load_with_torch
from tinyllm.serving.limits import Limits
from tinyllm.serving.request import TOKEN_BYTES, Step, TextRequest, Ticket
from tinyllm.serving.scheduler import Scheduler

LIMIT_TOKENS = 4
PROMPT = (1, 5, 6)
Made = SimpleQueue[tuple[int, Step | Exception]]


@pytest.fixture
def generator(make_model_dir: Callable[..., Path]) -> Generator:
    return load_with_torch(make_model_dir(context_length=64), device="cpu")


@contextmanager
def scheduling(generator: Generator) -> Iterator[Scheduler]:
    scheduler = Scheduler(generator, max_slots=3, max_queue=3)
    scheduler.start()
    yield scheduler
    scheduler.drain(0)


def requests_of(num_texts: int, num_tokens: int) -> list[TextRequest]:
    sampling = SamplingConfig(max_new_tokens=num_tokens, temperature=0, logit_bias=((1, -100), (2, -100)))
    return [TextRequest((*PROMPT, 7 + index), sampling) for index in range(num_texts)]


def new_ticket() -> Ticket:
    return Ticket(keeps_tokens=True, limit_bytes=LIMIT_TOKENS * TOKEN_BYTES)


def collect(news: Made) -> tuple[list[int], int]:
    """The texts of the news that are there, and their size, after the scheduler makes no more."""
    indices: list[int] = []
    num_bytes = quiet = 0
    while quiet < 5:
        quiet += 1
        time.sleep(0.05)
        while not news.empty():
            index, step = news.get()
            assert isinstance(step, Step)
            indices.append(index)
            num_bytes += step.num_bytes(keeps_tokens=True)
            quiet = 0
    return indices, num_bytes


def test_texts_wait_while_others_go_on_and_are_those_that_nobody_reads_slowly(generator: Generator) -> None:
    requests = requests_of(3, 12)
    expected = [generator.generate(each.prompt_ids, sampling=each.sampling)[0].token_ids for each in requests]
    news: Made = SimpleQueue()
    found: list[list[int]] = [[], []]
    ended = threading.Event()

    def keep(index: int, step: Step | Exception) -> None:
        assert isinstance(step, Step)
        found[index] += [token.id for token in step.tokens]
        news.put((index, step))

    with scheduling(generator) as scheduler:
        ticket = scheduler.submit_group(requests[:2], keep, new_ticket())
        indices, num_bytes = collect(news)
        assert LIMIT_TOKENS <= len(indices) <= LIMIT_TOKENS + 2
        assert scheduler.stats().num_running == 2
        other: list[int] = []

        def end(_: int, step: Step | Exception) -> None:
            assert isinstance(step, Step)
            other.extend(token.id for token in step.tokens)
            if step.finish_reason:
                ended.set()

        scheduler.submit(requests[2], end)
        assert ended.wait(30)
        assert news.empty()
        rounds = 0
        while scheduler.stats().num_running:
            scheduler.release(ticket, num_bytes)
            indices, num_bytes = collect(news)
            assert len(indices) <= LIMIT_TOKENS + 2
            rounds += 1
    assert rounds >= 3
    assert [*found, other] == expected


def test_texts_that_wait_can_be_cancelled(generator: Generator) -> None:
    news: Made = SimpleQueue()
    with scheduling(generator) as scheduler:
        ticket = scheduler.submit_group(requests_of(3, 100), lambda *new: news.put(new), new_ticket())
        waiting = scheduler.submit_group(requests_of(3, 100), lambda *new: news.put(new), new_ticket())
        collect(news)
        assert (scheduler.stats().num_running, scheduler.stats().num_waiting) == (3, 3)
        for each, left in ((waiting, 3), (ticket, 0)):
            scheduler.cancel(each)
            end = time.monotonic() + 1
            while scheduler.stats().num_running + scheduler.stats().num_waiting > left:
                assert time.monotonic() < end
                time.sleep(0.01)


def test_texts_that_wait_end_with_the_server(generator: Generator) -> None:
    news: Made = SimpleQueue()
    with scheduling(generator) as scheduler:
        scheduler.submit_group(requests_of(3, 100), lambda *new: news.put(new), new_ticket())
        collect(news)
        begin = time.monotonic()
        assert not scheduler.drain(0.2)
        assert time.monotonic() - begin < 2
    errors = [news.get()[1] for _ in range(3)]
    assert all(isinstance(error, ShuttingDownError) for error in errors)


def test_texts_that_wait_take_no_time(generator: Generator) -> None:
    news: Made = SimpleQueue()
    with scheduling(generator) as scheduler:
        scheduler.submit_group(requests_of(3, 100), lambda *new: news.put(new), new_ticket())
        collect(news)
        begin = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - begin < 0.25


STREAM = {
    "prompt": "Once",
    "n": 2,
    "max_tokens": 1500,
    "logprobs": 5,
    "logit_bias": {"1": -100, "2": -100},
    "stream": True,
}


@pytest.mark.parametrize("pause_seconds", [0.6, 0.0])
def test_a_client_that_reads_late_or_slowly_gets_all_of_its_text(generator: Generator, pause_seconds: float) -> None:
    limits = Limits(write_seconds=5, send_buffer_bytes=4096, unread_bytes=8 * TOKEN_BYTES)
    with serving(generator, limits=limits) as server, closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", server.client.base_url.port or 0))
        connection.sendall(request("POST", "/v1/completions", json.dumps(STREAM).encode(), "Connection: close"))
        time.sleep(pause_seconds)
        answer = connection.recv(100_000)
        while part := connection.recv(2**14):
            answer += part
            if not pause_seconds:
                time.sleep(0.002)
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert answer.count(b'"finish_reason":"length"') == 2


def test_a_client_that_never_reads_frees_its_slots(generator: Generator) -> None:
    limits = Limits(write_seconds=1, send_buffer_bytes=4096, unread_bytes=8 * TOKEN_BYTES)
    with serving(generator, limits=limits) as server:
        port = server.client.base_url.port or 0
        with closing(socket.socket()) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            body = json.dumps(STREAM | {"max_tokens": 15_000}).encode()
            connection.sendall(request("POST", "/v1/completions", body))
            time.sleep(0.5)
            assert server.scheduler.stats().num_running == 2
            end = time.monotonic() + 10
            while server.scheduler.stats().num_running:
                assert time.monotonic() < end
                time.sleep(0.05)
        with closing(connect(port)) as other:
            other.sendall(request("GET", "/health", b"", "Connection: close"))
            assert read_all(other).endswith(b'{"status":"ok"}')
