"""Work in threads: results and errors come back, and the end of the server waits for none of them."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from serving_stub import running, served
from tinyllm.errors import InputError, ShuttingDownError
from tinyllm.serving.threads import Threads

PATIENCE_SECONDS = 30


def test_results_and_errors_come_from_a_thread_of_their_own() -> None:
    def fail() -> None:
        raise InputError("no")

    async def ask() -> tuple[list[Any], bool]:
        threads = Threads()
        calls = [threads.call(threading.get_ident), threads.call(divmod, 7, 2), threads.call(fail)]
        return await asyncio.gather(*calls, return_exceptions=True), threads.join(PATIENCE_SECONDS)

    (thread, quotient, error), all_ended = asyncio.run(ask())
    assert thread != threading.get_ident()
    assert quotient == (3, 1)
    assert isinstance(error, InputError)
    assert all_ended


def test_the_end_answers_those_who_wait_and_leaves_the_thread_alone() -> None:
    go_on, results = threading.Event(), []

    async def ask() -> list[Any]:
        threads = Threads()
        waiting = [asyncio.create_task(threads.call(go_on.wait, PATIENCE_SECONDS)) for _ in range(3)]
        await asyncio.sleep(0.01)
        threads.close()
        results.append(threads)
        return await asyncio.gather(*waiting, threads.call(time.time), return_exceptions=True)

    assert [type(each) for each in asyncio.run(ask())] == [ShuttingDownError] * 4
    assert not results[0].join(0.01)
    go_on.set()  # the threads end after the loop that they would have told
    assert results[0].join(PATIENCE_SECONDS)


def test_a_thread_that_ends_after_its_caller_was_cancelled_tells_nobody() -> None:
    go_on = threading.Event()

    async def ask() -> bool:
        threads = Threads()
        task = asyncio.create_task(threads.call(go_on.wait, PATIENCE_SECONDS))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        return threads.join(PATIENCE_SECONDS)

    assert asyncio.run(ask())


def test_a_trace_that_the_end_of_the_server_cuts_is_answered_with_503() -> None:
    go_on, begun = threading.Event(), threading.Event()

    def trace(ids: list[int], *, num_likeliest: int) -> None:
        begun.set()
        go_on.wait(PATIENCE_SECONDS)

    model = served()
    model.generator.trace = trace  # type: ignore[method-assign,assignment]
    model.generator.config = SimpleNamespace(num_layers=1, num_heads=1)  # type: ignore[assignment]
    answers: list[httpx.Response] = []
    with running(model) as (port, server):
        url = f"http://127.0.0.1:{port}/studio/api/trace"
        asker = threading.Thread(
            target=lambda: answers.append(httpx.post(url, json={"text": "A"}, timeout=PATIENCE_SECONDS))
        )
        asker.start()
        assert begun.wait(PATIENCE_SECONDS)
        server.should_exit = True
        asker.join(PATIENCE_SECONDS)
        assert not go_on.is_set()  # the answer came while the trace ran
    go_on.set()
    (answer,) = answers
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "shutting_down"
