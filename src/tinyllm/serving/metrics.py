"""Measurements for Prometheus, in a registry of the server's own: requests, queue, slots, tokens and times."""

import time
from collections.abc import Collection, Iterable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinyllm.serving.models import ServedModel
from tinyllm.serving.request import Observer

CONTENT_TYPE = CONTENT_TYPE_LATEST
WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
TOKEN_TIMES = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """All measurements of a server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        model = ("model",)
        self._requests = Counter(
            "tinyllm_requests", "Requests by path and status.", ("path", "status"), registry=registry
        )
        self._seconds = Histogram(
            "tinyllm_request_seconds", "Time of whole requests.", ("path",), registry=registry, buckets=WAITS
        )
        self._running = Gauge("tinyllm_running_texts", "Texts that are read or generated.", model, registry=registry)
        self._waiting = Gauge("tinyllm_waiting_texts", "Texts in the queue.", model, registry=registry)
        self._slots = Gauge("tinyllm_slots", "Texts that can be generated at a time.", model, registry=registry)
        self.read = Counter("tinyllm_prompt_tokens", "Prompt tokens that were read.", model, registry=registry)
        self.reused = Counter(
            "tinyllm_reused_prompt_tokens", "Prompt tokens copied from another text.", model, registry=registry
        )
        self.generated = Counter("tinyllm_generated_tokens", "Tokens that were generated.", model, registry=registry)
        self.queue_seconds = Histogram(
            "tinyllm_queue_seconds", "Time of a text in the queue.", model, registry=registry, buckets=WAITS
        )
        self.first_token_seconds = Histogram(
            "tinyllm_time_to_first_token_seconds",
            "Time from the request to a text's first token.",
            model,
            registry=registry,
            buckets=WAITS,
        )
        self.token_seconds = Histogram(
            "tinyllm_time_per_token_seconds",
            "Mean time between the tokens of a text.",
            model,
            registry=registry,
            buckets=TOKEN_TIMES,
        )

    def expose(self, models: Iterable[ServedModel]) -> bytes:
        """All measurements in Prometheus' text format; those of the schedulers are read at this moment."""
        for model in models:
            stats = model.scheduler.stats()
            self._running.labels(model.name).set(stats.num_running)
            self._waiting.labels(model.name).set(stats.num_waiting)
            self._slots.labels(model.name).set(stats.num_slots)
        return generate_latest(self._registry)

    def count_requests(self, app: ASGIApp, paths: Collection[str]) -> ASGIApp:
        """`app` with every request counted and timed.

        A request is counted under its path if that is one of `paths`, else under `other`, so that a scan makes no new
        series.
        """

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            begin = time.perf_counter()
            status = "disconnected"

            async def send_counted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = str(HTTPStatus(message["status"]).value)
                await send(message)

            try:
                await app(scope, receive, send_counted)
            finally:
                path = scope["path"] if scope["path"] in paths else "other"
                self._requests.labels(path, status).inc()
                self._seconds.labels(path).observe(time.perf_counter() - begin)

        return counted

    def observer(self, model: str) -> "SchedulerMetrics":
        """The observer of one model's scheduler."""
        return SchedulerMetrics(self, model)


class SchedulerMetrics(Observer):
    """Writes the news of one scheduler into the metrics; called in the scheduler's thread."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._read = metrics.read.labels(model)
        self._reused = metrics.reused.labels(model)
        self._generated = metrics.generated.labels(model)
        self._queue_seconds = metrics.queue_seconds.labels(model)
        self._first_token_seconds = metrics.first_token_seconds.labels(model)
        self._token_seconds = metrics.token_seconds.labels(model)

    def admitted(self, queue_seconds: float) -> None:
        """A text has left the queue."""
        self._queue_seconds.observe(queue_seconds)

    def first_token(self, seconds: float) -> None:
        """A text has its first token."""
        self._first_token_seconds.observe(seconds)

    def step(self, num_read: int, num_prompt: int, num_generated: int, num_reused: int, seconds: float) -> None:  # noqa: ARG002
        """The engine has made a step."""
        self._read.inc(num_prompt)
        self._generated.inc(num_generated)
        self._reused.inc(num_reused)

    def ended(self, num_tokens: int, seconds_per_token: float | None) -> None:  # noqa: ARG002
        """A text has ended."""
        if seconds_per_token is not None:
            self._token_seconds.observe(seconds_per_token)
