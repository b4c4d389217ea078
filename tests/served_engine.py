"""A server of one model with its real scheduler, in a thread of this process, and readers of its events."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tinyllm.generation.generator import Generator
from tinyllm.serving.app import build_app
from tinyllm.serving.deliveries import Deliveries
from tinyllm.serving.limits import Limits
from tinyllm.serving.metrics import Metrics
from tinyllm.serving.models import Models, ServedModel
from tinyllm.serving.scheduler import Scheduler
from tinyllm.serving.security import access
from tinyllm.serving.server import Server, bind, run

Event = tuple[str, Any]


class Served:
    """A running server."""

    def __init__(self, url: str, scheduler: Scheduler, key: str | None) -> None:
        self.url, self.scheduler = url, scheduler
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.client = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.client.post(f"/studio/api/{path}", json=body)

    def generate(self, **body: Any) -> list[Event]:
        """The events of a generated text."""
        response = self.post("generate", body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return read_events(response.text)


def read_events(text: str) -> list[Event]:
    """Name and data of each server-sent event."""
    events = []
    for block in text.split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        events.append((lines["event"], json.loads(lines["data"])))
    return events


def tokens_in(events: list[Event]) -> list[dict[str, Any]]:
    """The generated tokens of a text."""
    return [data for name, data in events if name == "token"]


@contextmanager
def serving(
    generator: Generator,
    *,
    name: str = "tiny",
    key: str | None = None,
    max_queue: int = 8,
    limits: Limits | None = None,
) -> Iterator[Served]:
    """A server of `generator` with two slots."""
    deliveries, limits, ready = Deliveries(), limits or Limits(), threading.Event()
    scheduler = Scheduler(generator, max_slots=2, max_queue=max_queue, hand_over=deliveries.new_pacer().hand_over)
    models = Models([ServedModel(name, generator, scheduler)])
    app = build_app(models, Metrics(), access("127.0.0.1", key, (), ()), limits)
    server = Server(app, models, deliveries, limits, ready.set)
    with bind("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=run, args=(server, bound), daemon=True)
        thread.start()
        assert ready.wait(60)
        served = Served(f"http://127.0.0.1:{bound.getsockname()[1]}", scheduler, key)
        try:
            yield served
        finally:
            served.client.close()
            server.should_exit = True
            thread.join(60)
        assert not thread.is_alive()
