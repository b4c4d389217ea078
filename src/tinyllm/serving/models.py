"""The models of a server by name, each with its generator and the scheduler that owns its engine."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from tinyllm.errors import InputError, UsageError
from tinyllm.generation.generator import Generator
from tinyllm.serving.errors import ApiError, model_not_found
from tinyllm.serving.preparation import Preparation
from tinyllm.serving.scheduler import Scheduler
from tinyllm.serving.template_process import TemplateProcess


class ServedModel:
    """A model that requests can name."""

    def __init__(self, name: str, generator: Generator, scheduler: Scheduler, chat_template: str | None = None) -> None:
        self.name = name
        self.config = generator.config
        self.generator = generator
        """For its module and settings: only the scheduler uses its engine."""
        self.path = generator.path
        """The model's directory or file; None for a model that was made in memory."""
        self.tokenizer = generator.tokenizer
        self.scheduler = scheduler
        self.chat_template = chat_template
        """The Jinja template of a conversation; None if the model has none."""
        self.templates = TemplateProcess()
        """The process that renders its conversations."""
        self.preparation = Preparation()
        """The threads in which its requests are prepared."""
        self.context_length = generator.engine.context_length
        self.created = int(time.time())
        self.num_uses = 0
        """Requests that are being prepared, or use the model without its scheduler."""
        self.last_used = time.monotonic()
        self.longest_prompt_bytes = self.context_length * max(
            len(self.tokenizer.piece_bytes(id)) for id in range(self.tokenizer.vocab_size)
        )
        """A longer text cannot fit into the context; it is refused without encoding it, which would take long."""

    @property
    def is_used(self) -> bool:
        """Whether a request uses the model, or a text of it waits or runs."""
        stats = self.scheduler.stats()
        return self.num_uses > 0 or stats.num_running + stats.num_waiting > 0

    def describe(self) -> dict[str, Any]:
        """The object of `/v1/models`."""
        return describe(self.name, self.created, self.context_length)

    def prompt_ids(self, prompt: str | Sequence[int], param: str = "prompt") -> list[int]:
        """The ids of a prompt: a text begins with BOS if the model expects it, ids are used unchanged.

        Raises ApiError for a prompt that is longer than the context, empty without a BOS, or of unknown ids.
        """
        if isinstance(prompt, str):
            ids = self.encode(prompt, bos=self.tokenizer.begins_with_bos, param=param)
        else:
            ids = self.check_ids(prompt, param)
        return self.check_length(ids, param)

    def check_length(self, ids: list[int], param: str) -> list[int]:
        """`ids`. Raises ApiError if they are more than the context holds, or none."""
        if len(ids) > self.context_length:
            raise self._too_long(f"{len(ids):,} tokens", param, {"tokens": len(ids)})
        if not ids:
            message = f"{param} is empty, and this model has no BOS to begin with; give a text"
            raise ApiError(400, message, param=param, code="empty_prompt")
        return ids

    def encode(self, text: str, *, bos: bool = False, allow_special: bool = False, param: str = "prompt") -> list[int]:
        """The ids of `text`. Raises ApiError if it has more bytes than the context can hold, or is not Unicode."""
        num_bytes = len(text.encode(errors="surrogatepass"))
        if num_bytes > self.longest_prompt_bytes:
            length = f"{num_bytes:,} bytes, where {self.longest_prompt_bytes:,} can fit"
            raise self._too_long(length, param, {"bytes": num_bytes})
        try:
            return self.tokenizer.encode(text, bos=bos, allow_special=allow_special)
        except InputError as error:
            raise ApiError(400, f"{param}: {error}", param=param, code="invalid_text") from None

    def check_ids(self, ids: Sequence[int], param: str) -> list[int]:
        """`ids`. Raises ApiError naming the first that the vocabulary has not."""
        for id in ids:
            if id >= self.tokenizer.vocab_size:
                message = (
                    f"{param}: token id {id} is out of range; the model's ids are 0 to {self.tokenizer.vocab_size - 1}"
                )
                raise ApiError(400, message, param=param)
        return list(ids)

    def _too_long(self, length: str, param: str, size: dict[str, int]) -> ApiError:
        message = f"This model's maximum context length is {self.context_length:,} tokens; {param} has {length}"
        values = {"most": self.context_length, **size}
        return ApiError(400, message, param=param, code="context_length_exceeded", values=values)


class FoundModels(Protocol):
    """Models that are loaded when they are used (`pool.ModelPool`)."""

    @property
    def loaded(self) -> Sequence[ServedModel]:
        """The models in memory."""

    def has(self, name: str) -> bool:
        """Whether there is a model of this name."""

    def first_name(self) -> str | None:
        """The name of the model for requests that name none; None if there is no model."""

    def describe_all(self) -> list[dict[str, Any]]:
        """The objects of `/v1/models`, also of models that are not loaded."""

    async def refresh(self) -> None:
        """Looks for models that are new."""

    async def open(self, name: str) -> ServedModel:
        """The model, which is loaded first if need be. Raises ApiError or ResourceError if that is impossible."""

    def close(self) -> None:
        """Loads no further model."""


class Models:
    """The served models, and those of a folder that are loaded when they are used. The first is the default."""

    def __init__(self, served: Sequence[ServedModel], found: FoundModels | None = None) -> None:
        self._by_name = {model.name: model for model in served}
        self._found = found
        self.is_closed = False
        """Whether the server ends."""
        self._at_end: list[Callable[[], None]] = []
        assert len(self._by_name) == len(served)
        assert served or found is not None

    def __iter__(self) -> Iterator[ServedModel]:
        """The models in memory."""
        yield from self._by_name.values()
        if self._found is not None:
            yield from self._found.loaded

    def describe_all(self) -> list[dict[str, Any]]:
        """The objects of `/v1/models`, also of models that are not loaded."""
        described = [model.describe() for model in self._by_name.values()]
        return described + (self._found.describe_all() if self._found is not None else [])

    def describe(self, name: str) -> dict[str, Any]:
        """The object of one model. Raises ApiError for an unknown name."""
        for fields in self.describe_all():
            if fields["id"] == name:
                return fields
        raise model_not_found(name)

    @asynccontextmanager
    async def using(self, name: str | None) -> AsyncIterator[ServedModel]:
        """The model of this name, which stays loaded inside; the first one for None.

        Raises ApiError for an unknown name, and for a model of the folder that cannot be loaded.
        """
        model = await self._open(name)
        model.num_uses += 1
        try:
            yield model
        finally:
            model.num_uses -= 1
            model.last_used = time.monotonic()

    async def refresh(self) -> None:
        """Looks for models that are new in the folder."""
        if self._found is not None:
            await self._found.refresh()

    async def _open(self, name: str | None) -> ServedModel:
        if name is None and self._by_name:
            return next(iter(self._by_name.values()))
        if name in self._by_name:
            return self._by_name[name]
        found = self._found
        if found is None:
            raise model_not_found(name or "")
        if name is None or not found.has(name):
            await found.refresh()
        name = name or found.first_name()
        if name is None or not found.has(name):
            raise model_not_found(name or "")
        return await found.open(name)

    def on_close(self, function: Callable[[], None]) -> None:
        """Calls `function` when the server ends."""
        self._at_end.append(function)

    def close(self) -> None:
        """Loads no further model, and ends what would go on for ever; the server ends."""
        self.is_closed = True
        if self._found is not None:
            self._found.close()
        for model in self:
            model.preparation.close()
            model.templates.close()
        for function in self._at_end:
            function()


def describe(name: str, created: int, context_length: int) -> dict[str, Any]:
    """OpenAI's object of a model; `max_model_len` is vLLM's name of the context length."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "tinyllm",
        "max_model_len": context_length,
    }


def names_of(paths: Sequence[Path]) -> list[str]:
    """The name of each model: that of its file or directory, of the run for `RUN/model`.

    Raises UsageError for two models of one name.
    """
    names: list[str] = []
    for path in paths:
        full = path.resolve()
        name = full.parent.name if full.name == "model" and full.is_dir() else full.name
        if name in names:
            other = paths[names.index(name)]
            raise UsageError(f"{other} and {path} are both named {name}, and requests choose by name; rename one")
        names.append(name)
    return names
