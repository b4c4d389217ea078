"""Models of a folder: loaded when they are used, and closed when others need their place."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serving_stub import StubScheduler, served
from tinyllm.errors import FormatError, ResourceError, ShuttingDownError
from tinyllm.serving.errors import ApiError
from tinyllm.serving.models import Models, ServedModel
from tinyllm.serving.pool import FoundModel, ModelPool
from tinyllm.serving.request import Stats


class IdleScheduler(StubScheduler):
    """A scheduler with a number of running texts."""

    num_running = 0

    def stats(self) -> Stats:
        return Stats(self.num_running, 0, 8, 0, 0, 0)


class Folder:
    """A folder of models that counts how often each is loaded."""

    def __init__(self, *names: str) -> None:
        self.found = {name: FoundModel(Path(name), 64, 1.0) for name in names}
        self.loads: list[str] = []
        self.schedulers: dict[str, IdleScheduler] = {}
        self.error: Exception | None = None
        self.pool = ModelPool(lambda: self.found, lambda: None, self.load, most_loaded=2)
        self.models = Models([], self.pool)

    def load(self, name: str, path: Path) -> ServedModel:
        if self.error is not None:
            raise self.error
        self.loads.append(name)
        self.schedulers[name] = IdleScheduler()
        return served(name, self.schedulers[name])

    async def use(self, *names: str | None) -> None:
        for name in names:
            async with self.models.using(name) as model:
                assert model.name == name or name is None

    @property
    def in_memory(self) -> list[str]:
        return [model.name for model in self.models]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_a_model_is_loaded_once_and_when_it_is_used() -> None:
    folder = Folder("a", "b")
    assert [each["id"] for each in folder.models.describe_all()] == ["a", "b"]
    assert folder.loads == []

    async def test() -> None:
        await asyncio.gather(*(folder.use("b", None) for _ in range(5)))

    run(test)
    assert folder.loads == ["b", "a"]


def test_the_one_unused_for_longest_makes_room() -> None:
    folder = Folder("a", "b", "c")
    run(lambda: folder.use("a", "b", "a", "c"))
    assert folder.in_memory == ["a", "c"]
    assert folder.schedulers["b"].drained_seconds == 0


def test_a_model_in_use_is_never_closed() -> None:
    folder = Folder("a", "b", "c")

    async def test() -> None:
        async with folder.models.using("a"):
            await folder.use("b")
            folder.schedulers["b"].num_running = 1
            with pytest.raises(ResourceError, match="in use"):
                await folder.use("c")
            folder.schedulers["b"].num_running = 0
            await folder.use("c")
            assert folder.in_memory == ["a", "c"]

    run(test)


def test_a_changed_model_is_loaded_again_when_it_is_idle() -> None:
    folder = Folder("a")

    async def test() -> None:
        async with folder.models.using("a"):
            folder.found["a"] = FoundModel(Path("a"), 64, 2.0)
            await folder.use("a")
            assert folder.loads == ["a"]
        await folder.use("a")
        assert folder.loads == ["a", "a"]

    run(test)


def test_a_model_that_cannot_be_loaded_is_an_error_of_its_request() -> None:
    folder = Folder("a")
    folder.error = FormatError("it is damaged")

    async def test() -> None:
        with pytest.raises(ApiError, match="cannot be loaded: it is damaged") as caught:
            await folder.use("a")
        assert (caught.value.status, caught.value.fields["code"]) == (400, "model_cannot_be_loaded")
        folder.error = None
        await folder.use("a")

    run(test)


def test_unknown_and_removed_models_are_told() -> None:
    folder = Folder()

    async def test() -> None:
        for name in ("a", "", None):
            with pytest.raises(ApiError, match="does not exist"):
                await folder.use(name)

    run(test)


def test_a_server_that_ends_loads_nothing() -> None:
    folder = Folder("a")
    folder.models.close()

    async def test() -> None:
        with pytest.raises(ShuttingDownError):
            await folder.use("a")

    run(test)
    assert folder.in_memory == []
