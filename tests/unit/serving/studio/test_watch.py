"""Streams of a run: what is new arrives within seconds, once a second for all, and slow clients are dropped."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio_folder import lines_of_run, sample, update, write_lines, write_run
from studio_server import StudioApp, studio_server
from tinyllm.errors import InputError, QueueFullError
from tinyllm.serving.limits import Limits
from tinyllm.serving.streams import ALIVE
from tinyllm.serving.studio import watch as watch_module
from tinyllm.serving.studio.answers import EventResponse
from tinyllm.serving.studio.curves import Cursor
from tinyllm.serving.studio.library import Item
from tinyllm.serving.studio.run_states import RunStates
from tinyllm.serving.studio.watch import MOST_STREAMS, Look, Watchers

Event = tuple[str, dict[str, Any]]


def events_in(content: bytes) -> list[Event]:
    """Name and object of each event; comments are left out."""
    found = []
    for block in content.decode().split("\n\n"):
        if block.startswith("event: "):
            name, data = block.removeprefix("event: ").split("\ndata: ")
            found.append((name, json.loads(data)))
    return found


class Client:
    """A follower of a run in the event loop of a test."""

    def __init__(self, watchers: Watchers, item: Item, cursor: Cursor | None = None) -> None:
        watchers.open()
        self.chunks = watchers.follow(item, cursor)
        self.events: list[Event] = []

    async def until(self, name: str) -> dict[str, Any]:
        """Takes events until one of this name comes."""
        async with asyncio.timeout(20):
            while True:
                for index, (found, value) in enumerate(self.events):
                    if found == name:
                        del self.events[: index + 1]
                        return value
                self.events += events_in(await anext(self.chunks))


class Reads:
    """Calls functions in threads and counts them by name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    async def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.counts[function.__name__] = self.counts.get(function.__name__, 0) + 1
        return await asyncio.to_thread(function, *arguments)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def follow(run: Path, test: Callable[[Watchers, Item, Reads], Awaitable[None]], limit_bytes: int = 10**6) -> None:
    """Runs a test with watchers of its own, and checks that nothing of them stays."""
    reads = Reads()
    watchers = Watchers(RunStates(reads), limit_bytes)

    async def main() -> None:
        await test(watchers, Item("run", "run", run), reads)
        watchers.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_new_lines_samples_and_states_arrive(run: Path) -> None:
    async def test(watchers: Watchers, item: Item, reads: Reads) -> None:
        client = Client(watchers, item)
        state = await client.until("state")
        assert (state["step"], state["state"]) == (50, "running")
        write_lines(run / "metrics.jsonl", [update(51), update(52)], "a")
        write_lines(run / "samples.jsonl", [sample(52)], "a")
        news = await client.until("metrics")
        assert (news["training"]["step"], news["training"]["seconds"]) == ([51, 52], [25.5, 26.0])
        assert [each["step"] for each in (await client.until("samples"))["samples"]] == [52]
        assert (await client.until("state"))["step"] == 52
        write_lines(run / "metrics.jsonl", [update(53)], "a")
        assert (await client.until("metrics"))["training"]["step"] == [53]
        await client.chunks.aclose()
        assert watchers.num_streams == 0

    follow(run, test)


def test_a_client_that_comes_back_gets_what_it_missed_and_nothing_twice(run: Path) -> None:
    async def test(watchers: Watchers, item: Item, reads: Reads) -> None:
        states = RunStates(reads)
        cursor = await states.end(item)
        first = Client(watchers, item, cursor)
        await first.until("state")
        write_lines(run / "metrics.jsonl", [update(51)], "a")
        second = Client(watchers, item, cursor)
        assert (await second.until("metrics"))["training"]["step"] == [51]
        assert (await first.until("metrics"))["training"]["step"] == [51]
        write_lines(run / "metrics.jsonl", [update(52)], "a")
        for client in (first, second):
            news = await client.until("metrics")
            assert news["training"]["step"] == [52]
            assert news["cursor"] == str(await states.end(item))
            await client.chunks.aclose()

    follow(run, test)


def test_a_log_that_is_rewritten_begins_again(run: Path) -> None:
    async def test(watchers: Watchers, item: Item, reads: Reads) -> None:
        client = Client(watchers, item)
        await client.until("state")
        write_lines(run / "metrics.jsonl", lines_of_run(20))
        await client.until("restart")
        with pytest.raises(StopAsyncIteration):
            await client.until("metrics")
        again = Client(watchers, item, await RunStates(reads).end(item))
        write_lines(run / "metrics.jsonl", [update(21)], "a")
        assert (await again.until("metrics"))["training"]["step"] == [21]
        await again.chunks.aclose()

    follow(run, test)


def test_a_run_that_is_removed_ends_nothing(run: Path) -> None:
    async def test(watchers: Watchers, item: Item, reads: Reads) -> None:
        client = Client(watchers, item)
        await client.until("state")
        (run / "metrics.jsonl").unlink()
        await client.until("restart")
        await client.chunks.aclose()
        again = Client(watchers, item)
        await again.until("state")
        write_lines(run / "metrics.jsonl", [update(1)])
        assert (await again.until("metrics"))["training"]["step"] == [1]
        await again.chunks.aclose()

    follow(run, test)


def test_one_poll_serves_all_clients(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "POLL_SECONDS", 0.1)

    async def test(watchers: Watchers, item: Item, reads: Reads) -> None:
        clients = [Client(watchers, item) for _ in range(30)]
        for client in clients:
            await client.until("state")
        reads.counts.clear()
        begin = time.monotonic()
        while time.monotonic() < begin + 1:
            await asyncio.sleep(0.05)
        assert 1 <= reads.counts["read_new_samples"] <= 11
        write_lines(run / "metrics.jsonl", [update(51)], "a")
        for client in clients:
            assert (await client.until("metrics"))["training"]["step"] == [51]
            await client.chunks.aclose()
        before = dict(reads.counts)
        await asyncio.sleep(0.3)
        assert reads.counts == before, "nobody looks, and nothing is read"

    follow(run, test)


def test_the_number_of_streams_is_bounded(run: Path) -> None:
    async def test(watchers: Watchers, item: Item, reads: Reads) -> None:
        for _ in range(MOST_STREAMS):
            watchers.open()
        with pytest.raises(QueueFullError):
            watchers.open()

    follow(run, test)


def test_a_client_that_reads_too_slowly_is_dropped_and_others_go_on(run: Path) -> None:
    async def test(watchers: Watchers, item: Item, reads: Reads) -> None:
        slow, quick = Client(watchers, item), Client(watchers, item)
        await slow.until("state")
        await quick.until("state")
        for step in range(51, 57):
            write_lines(run / "samples.jsonl", [sample(step) | {"text": "x" * 9_000}], "a")
            await quick.until("samples")
        with pytest.raises(StopAsyncIteration):
            await slow.until("nothing")
        await quick.chunks.aclose()

    follow(run, test, limit_bytes=20_000)


def test_a_quiet_stream_has_a_comment_now_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "ALIVE_SECONDS", 0.05)
    assert asyncio.run(Look(100).take()) == ALIVE


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_a_server_streams_and_ends_its_streams_at_once_when_it_ends(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with studio_server(tmp_path) as (port, made, server):
        url = f"http://127.0.0.1:{port}/studio/api/run/events?id=run"
        with httpx.stream("GET", url, timeout=20) as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert response.headers["cache-control"] == "no-store"
            parts = response.iter_bytes()
            assert events_in(next(parts))[0][0] == "state"
            write_lines(run / "metrics.jsonl", [update(51)], "a")
            assert events_in(next(parts))[0][0] == "metrics"
            begin = time.monotonic()
            server.should_exit = True
            assert all(name in ("state", "metrics") for part in parts for name, _ in events_in(part))
            assert time.monotonic() - begin < 3
        assert made.studio.watchers.num_streams == 0


def test_a_client_that_goes_away_ends_its_stream(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    with studio_server(tmp_path) as (port, made, _):
        for _ in range(5):
            with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
                connection.sendall(request("/studio/api/run/events?id=run"))
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
        end = time.monotonic() + 5
        while made.studio.watchers.num_streams:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_head_of_a_stream_does_not_open_one(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    with (
        studio_server(tmp_path) as (port, made, _),
        closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection,
    ):
        head = request("/studio/api/run/events?id=run").replace(b"GET", b"HEAD", 1)
        last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(head + last)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert answer.endswith(b'{"status":"ok"}')
        end = time.monotonic() + 5
        while made.studio.watchers.num_streams:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_client_that_never_reads_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "POLL_SECONDS", 0.02)
    run = write_run(tmp_path / "run")
    limits = Limits(write_seconds=1, send_buffer_bytes=4096, unread_bytes=2**16)
    with studio_server(tmp_path, limits=limits) as (port, made, _):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(request("/studio/api/run/events?id=run"))
        end = time.monotonic() + 20
        step = 50
        is_open = False
        while not is_open or made.studio.watchers.num_streams:
            is_open |= made.studio.watchers.num_streams == 1
            assert time.monotonic() < end, "not dropped"
            step += 1
            write_lines(run / "samples.jsonl", [sample(step) | {"text": "x" * 19_000}], "a")
            time.sleep(0.02)
        connection.close()


@pytest.mark.parametrize(("when", "status"), [("first", 400), ("later", 200)])
def test_an_error_is_a_response_or_the_last_event(when: str, status: int) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        if when == "later":
            yield b": one\n\n"
        raise InputError("the file is gone")

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    asyncio.run(EventResponse(chunks())({"type": "http"}, receive, send))
    assert sent[0]["status"] == status
    body = b"".join(message.get("body", b"") for message in sent)
    assert b"the file is gone" in body
    assert not sent[-1].get("more_body", False)
    assert (b"event: error\n" in body) == (when == "later")


def test_a_query_with_a_cursor_of_another_file_begins_again(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    made = StudioApp(tmp_path)

    async def test() -> None:
        item = await made.studio.find("runs", "run")
        client = Client(made.studio.watchers, item, Cursor.parse("5-123-1.000"))
        assert await client.until("restart") == {}
        await client.chunks.aclose()

    asyncio.run(test())
