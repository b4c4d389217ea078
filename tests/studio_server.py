"""The application with a folder, for the studio's tests: without a socket, or as a server in this process."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from starlette.types import ASGIApp

from serving_stub import served
from tinyllm.serving.app import build_app
from tinyllm.serving.deliveries import Deliveries
from tinyllm.serving.limits import Limits
from tinyllm.serving.metrics import Metrics
from tinyllm.serving.models import Models, ServedModel
from tinyllm.serving.pool import FoundModel, ModelPool
from tinyllm.serving.security import Access, access
from tinyllm.serving.server import Server, bind, run
from tinyllm.serving.studio.library import Library
from tinyllm.serving.studio.site import Studio

OPEN = access("127.0.0.1", None, (), ())


class StudioApp:
    """An application over a folder, whose models are stubs that are loaded when they are used."""

    def __init__(self, folder: Path, rules: Access = OPEN, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        library = Library(folder)
        self.loads: list[str] = []
        self.pool = ModelPool(
            lambda: {id: FoundModel(item.path, 32, 1.0) for id, item in library.catalogue.models.items()},
            library.search,
            self._load,
        )
        self.models = Models([], self.pool)
        self.studio = Studio(self.models, limits, library)
        self.app: ASGIApp = build_app(self.models, Metrics(), rules, limits, self.studio)

    def _load(self, name: str, path: Path) -> ServedModel:
        self.loads.append(name)
        return served(name)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """The response to one request, in a loop of its own."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
                content = None if body is None else json.dumps(body)  # a lone surrogate stays an escape
                sent = headers if body is None else {**headers, "Content-Type": "application/json"}
                return await client.request(method, path, headers=sent, content=content)

        return asyncio.run(ask())


@contextmanager
def studio_server(
    folder: Path, rules: Access = OPEN, limits: Limits | None = None
) -> Iterator[tuple[int, StudioApp, Server]]:
    """A server of the application in a thread: its port, the application, and the server."""
    limits = limits or Limits()
    made = StudioApp(folder, rules, limits)
    ready = threading.Event()
    server = Server(made.app, made.models, Deliveries(), limits, ready.set)
    with bind("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=run, args=(server, bound), daemon=True)
        thread.start()
        try:
            assert ready.wait(30)
            yield bound.getsockname()[1], made, server
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive()
