"""Puts a server together: models, their schedulers, metrics, the application, and the socket."""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from tinyllm.generation.generator import Generator
from tinyllm.serving.app import build_app
from tinyllm.serving.deliveries import Deliveries
from tinyllm.serving.limits import Limits
from tinyllm.serving.metrics import Metrics
from tinyllm.serving.models import Models, ServedModel
from tinyllm.serving.pool import FoundModel, ModelPool
from tinyllm.serving.scheduler import Scheduler
from tinyllm.serving.security import Access
from tinyllm.serving.server import Server, run
from tinyllm.serving.studio.library import Library
from tinyllm.serving.studio.site import Studio
from tinyllm.serving.templates import compile_template, read_template
from tinyllm.serving.threads import Threads

JOIN_SECONDS = 0.5
"""Time for threads to end after the last answer."""


class Service:
    """Models that are served together until a signal."""

    def __init__(self, rules: Access, limits: Limits | None = None) -> None:
        self._rules = rules
        self._limits = limits or Limits()
        self._metrics = Metrics()
        self._deliveries = Deliveries()
        self._threads = Threads()
        self._models: list[ServedModel] = []
        self._library: Library | None = None
        self._pool: ModelPool | None = None

    def add(self, name: str, generator: Generator, *, max_slots: int, max_queue: int) -> None:
        """Adds a model under a name that no other has; it gets a thread of its own.

        Raises ResourceError if the slots do not fit into memory, FormatError for a damaged chat template.
        """
        self._models.append(self._serve(name, generator, max_slots, max_queue))

    def open_folder(
        self,
        folder: Path,
        load: Callable[[Path], Generator],
        *,
        extra_models: Mapping[str, Path],
        max_slots: int,
        max_queue: int,
    ) -> None:
        """Shows a folder in the studio. Its models, and `extra_models` by name, are loaded when they are used.

        `load` is called in a thread of its own.
        """
        names = {model.name for model in self._models}
        paths = [model.path.resolve() for model in self._models if model.path is not None]
        self._library = library = Library(folder, extra_models, taken_names=names, served_paths=paths)
        self._pool = ModelPool(
            lambda: {
                id: FoundModel(item.path, item.facts["context_length"], item.facts["changed"])
                for id, item in library.catalogue.models.items()
            },
            library.search,
            lambda name, path: self._serve(name, load(path), max_slots, max_queue),
            threads=self._threads,
        )

    def run(self, bound: socket.socket, on_ready: Callable[[], None]) -> bool:
        """Serves on `bound` until SIGINT or SIGTERM; calls `on_ready` when requests are accepted.

        Returns whether all work has ended. A thread that imports, compiles or traces cannot be stopped: its request is
        answered, and the caller decides whether to wait for it.
        """
        models = Models(self._models, self._pool)
        studio = Studio(models, self._limits, self._library, self._threads)
        app = build_app(models, self._metrics, self._rules, self._limits, studio)
        run(Server(app, models, self._deliveries, self._limits, on_ready), bound)
        return self._threads.join(JOIN_SECONDS)

    def _serve(self, name: str, generator: Generator, max_slots: int, max_queue: int) -> ServedModel:
        template = read_template(generator.path)
        if template is not None:
            compile_template(template, str(generator.path))
        scheduler = Scheduler(
            generator,
            max_slots=max_slots,
            max_queue=max_queue,
            observer=self._metrics.observer(name),
            hand_over=self._deliveries.new_pacer().hand_over,
        )
        return ServedModel(name, generator, scheduler, template)
