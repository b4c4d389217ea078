"""Puts a server together: models, their schedulers, metrics, the application, and the socket."""

import socket
from collections.abc import Callable

from tinyllm.generation.generator import Generator
from tinyllm.serving.app import build_app
from tinyllm.serving.chat import read_template
from tinyllm.serving.deliveries import Deliveries
from tinyllm.serving.limits import Limits
from tinyllm.serving.metrics import Metrics
from tinyllm.serving.models import Models, ServedModel
from tinyllm.serving.scheduler import Scheduler
from tinyllm.serving.security import Access
from tinyllm.serving.server import Server, run


class Service:
    """Models that are served together until a signal."""

    def __init__(self, rules: Access, limits: Limits | None = None) -> None:
        self._rules = rules
        self._limits = limits or Limits()
        self._metrics = Metrics()
        self._deliveries = Deliveries()
        self._models: list[ServedModel] = []

    def add(self, name: str, generator: Generator, *, max_slots: int, max_queue: int) -> None:
        """Adds a model under a name that no other has; it gets a thread of its own.

        Raises ResourceError if the slots do not fit into memory, FormatError for a damaged chat template.
        """
        scheduler = Scheduler(
            generator,
            max_slots=max_slots,
            max_queue=max_queue,
            observer=self._metrics.observer(name),
            hand_over=self._deliveries.new_pacer().hand_over,
        )
        self._models.append(ServedModel(name, generator, scheduler, read_template(generator.path)))

    def run(self, bound: socket.socket, on_ready: Callable[[], None]) -> None:
        """Serves on `bound` until SIGINT or SIGTERM; calls `on_ready` when requests are accepted."""
        models = Models(self._models)
        app = build_app(models, self._metrics, self._rules, self._limits)
        run(Server(app, models, self._deliveries, self._limits, on_ready), bound)
