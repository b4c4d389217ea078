"""Threads that prepare requests: bounded, apart from others, and no hindrance to the server's end."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from serving_stub import StubScheduler, call, connect, running, served
from tinyllm.errors import QueueFullError, ShuttingDownError
from tinyllm.serving import preparation
from tinyllm.serving.preparation import NUM_THREADS, Preparation

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def test_results_and_errors_come_back() -> None:
    threads = Preparation()
    assert asyncio.run(threads.run(int, "3")) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(threads.run(int, "x"))
    threads.close()


@pytest.fixture
def gate() -> Iterator[Callable[[], bool]]:
    """A function that waits until the test is over."""
    event = threading.Event()
    yield lambda: event.wait(60)
    event.set()


def test_the_number_of_requests_is_bounded_and_the_end_answers_those_that_wait(
    gate: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "MOST_REQUESTS", NUM_THREADS + 2)

    async def main() -> None:
        threads = Preparation()
        tasks = [asyncio.create_task(threads.run(gate)) for _ in range(NUM_THREADS + 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await threads.run(gate)
        threads.close()
        waiting = await asyncio.gather(*tasks[NUM_THREADS:], return_exceptions=True)
        assert [type(each) for each in waiting] == [ShuttingDownError, ShuttingDownError]
        with pytest.raises(ShuttingDownError):
            await threads.run(gate)

    asyncio.run(main())


def test_endless_templates_of_one_model_hold_up_neither_another_one_nor_the_end() -> None:
    body = b'{"model": "bad", "messages": [{"role": "user", "content": "a"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with running(served("good"), served("bad", chat_template=LOOP)) as (port, _):
        clients = [connect(port) for _ in range(8)]
        for client in clients:
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.3)
        good = b'{"model": "good", "prompt": "Once"}'
        with connect(port) as other:
            start = time.monotonic()
            path = head.replace(b"/chat", b"")
            other.sendall(path + b"Content-Length: %d\r\n\r\n" % len(good) + good)
            assert other.recv(100).startswith(b"HTTP/1.1 200")
            assert time.monotonic() - start < 2
        start = time.monotonic()
    assert time.monotonic() - start < 6
    for client in clients:
        client.close()


def test_a_text_to_tokenize_is_no_longer_than_a_prompt() -> None:
    scheduler = StubScheduler()
    model = served(scheduler=scheduler)
    for name in ("content", "prompt"):
        error = call("POST", "/tokenize", {name: "a" * (model.longest_prompt_bytes + 1)}).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", name)
