"""The application with a scheduler that needs no engine: every text is the same, token by token."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
from starlette.types import ASGIApp

from tinyllm.model_dir import bundled_model, read_config, read_tokenizer
from tinyllm.serving import answer_schemas
from tinyllm.serving.app import build_app
from tinyllm.serving.deliveries import Deliveries
from tinyllm.serving.limits import Limits
from tinyllm.serving.metrics import Metrics
from tinyllm.serving.models import Models, ServedModel
from tinyllm.serving.request import Deliver, Stats, Step, TextRequest, Ticket, TokenLogprob
from tinyllm.serving.security import Access, access
from tinyllm.serving.server import Server, bind, run

TEXT = " there was a lively girl"
CONTEXT_LENGTH = 64
NATS = -0.5
CONFIG = read_config(bundled_model())


class StubScheduler:
    """Generates `TEXT`, one token a turn of the event loop, up to `max_new_tokens`."""

    def __init__(
        self, failure: Exception | None = None, fails_after: int = 0, *, text: str = TEXT, seconds: float = 0.0
    ) -> None:
        """`failure` ends each text after `fails_after` tokens; at 0 the request is refused.

        `text` is what is generated, with `seconds` between two tokens.
        """
        self.requests: list[TextRequest] = []
        self.cancelled = 0
        self.drained_seconds: float | None = None
        self._seconds = seconds
        self._failure = failure
        self._fails_after = fails_after
        self.tokenizer = read_tokenizer(bundled_model())
        self._ids = self.tokenizer.encode(text.strip())

    def submit_group(self, requests: Sequence[TextRequest], deliver: Deliver, ticket: Ticket) -> Ticket:
        if self._failure is not None and not self._fails_after:
            raise self._failure
        self.requests += requests
        for index, request in enumerate(requests):
            self._generate(index, request, deliver, 0)
        return ticket

    def _generate(self, index: int, request: TextRequest, deliver: Deliver, place: int) -> None:
        loop = asyncio.get_running_loop()
        if self._failure is not None and place == self._fails_after:
            loop.call_soon(deliver, index, self._failure)
            return
        num_tokens = min(request.sampling.max_new_tokens, len(self._ids))
        id = self._ids[place]
        top = tuple((each, NATS - each) for each in range(request.top_logprobs))
        # The later samples are likelier.
        token = TokenLogprob(id, NATS / (1 + request.sample), top)
        is_last = place == num_tokens - 1
        reason = None if not is_last else "length" if num_tokens < len(self._ids) else "stop"
        prompt = None
        if request.prompt_logprobs and place == 0:
            prompt = (None, *(TokenLogprob(each, NATS, ()) for each in request.prompt_ids[1:]))
        text = self.tokenizer.piece_bytes(id).decode()
        step = Step(text, (token,), reason, prompt)  # type: ignore[arg-type]
        loop.call_soon(deliver, index, step)
        if not is_last:
            loop.call_later(self._seconds, self._generate, index, request, deliver, place + 1)

    def cancel(self, ticket: Ticket) -> None:
        self.cancelled += 1

    def release(self, ticket: Ticket, num_bytes: int) -> None:
        """Nothing: these texts do not wait for their reader."""

    def start(self) -> None:
        """Nothing: the event loop generates."""

    def drain(self, seconds: float) -> bool:
        self.drained_seconds = seconds
        return True

    def stats(self) -> Stats:
        return Stats(2, 1, 8, 0, 0, 0)


def served(
    name: str = "storybook", scheduler: StubScheduler | None = None, chat_template: str | None = None
) -> ServedModel:
    """A model with the bundled tokenizer and a stub for a scheduler."""
    scheduler = scheduler or StubScheduler()
    engine = SimpleNamespace(context_length=CONTEXT_LENGTH)
    generator: Any = SimpleNamespace(tokenizer=scheduler.tokenizer, engine=engine, path=None, config=CONFIG)
    return ServedModel(name, generator, scheduler, chat_template)  # type: ignore[arg-type]


ANSWERS: dict[str, type[answer_schemas.Answer]] = {
    "/v1/models": answer_schemas.ModelsAnswer,
    "/v1/completions": answer_schemas.CompletionResponse,
    "/v1/chat/completions": answer_schemas.ChatResponse,
    "/tokenize": answer_schemas.TokenizeResponse,
    "/detokenize": answer_schemas.DetokenizeResponse,
    "/health": answer_schemas.HealthResponse,
}


def call(
    method: str,
    path: str,
    body: object = None,
    *,
    models: Sequence[ServedModel] = (),
    rules: Access | None = None,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
    app: ASGIApp | None = None,
    **options: Any,
) -> httpx.Response:
    """The response of `app`, or of an application of `models`, to one request, in a loop of its own.

    The answer of a documented route is compared with its schema.
    """
    app = app or build_app(
        Models(list(models) or [served()]),
        metrics or Metrics(),
        rules or access("127.0.0.1", None, (), ()),
        limits or Limits(),
    )

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            if body is not None:
                options["json"] = body
            return await client.request(method, path, **options)

    response = asyncio.run(ask())
    schema = ANSWERS.get(path)
    is_json = response.headers.get("content-type") == "application/json"
    if schema is not None and method != "HEAD" and response.status_code == 200 and is_json:
        schema.model_validate_json(response.content, strict=True)
    return response


def complete(body: dict[str, Any], **options: Any) -> httpx.Response:
    """The response to a completion request with a prompt."""
    return call("POST", "/v1/completions", {"prompt": "Once upon a time"} | body, **options)


def chat(body: dict[str, Any], **options: Any) -> httpx.Response:
    """The response to a chat request with a message."""
    return call("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]} | body, **options)


@contextmanager
def running(
    *models: ServedModel, limits: Limits | None = None, rules: Access | None = None
) -> Iterator[tuple[int, Server]]:
    """A server of the application in a thread of this process: its port, and the server."""
    found, chosen = Models(list(models) or [served()]), limits or Limits()
    app = build_app(found, Metrics(), rules or access("127.0.0.1", None, (), ()), chosen)
    ready = threading.Event()
    server = Server(app, found, Deliveries(), chosen, ready.set)
    with bind("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=run, args=(server, bound), daemon=True)
        thread.start()
        try:
            assert ready.wait(30)
            yield bound.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive()


def connect(port: int, seconds: float = 20) -> socket.socket:
    """A connection to a server of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=seconds)
