"""The models of a server by name, each with its generator and the scheduler that owns its engine."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinyllm.errors import InputError, UsageError
from tinyllm.generation.generator import Generator
from tinyllm.serving.errors import ApiError, model_not_found
from tinyllm.serving.scheduler import Scheduler


class ServedModel:
    """A model that requests can name."""

    def __init__(self, name: str, generator: Generator, scheduler: Scheduler, chat_template: str | None = None) -> None:
        self.name = name
        self.tokenizer = generator.tokenizer
        self.scheduler = scheduler
        self.chat_template = chat_template
        """The Jinja template of a conversation; None if the model has none."""
        self.context_length = generator.engine.context_length
        self.created = int(time.time())
        self.longest_prompt_bytes = self.context_length * max(
            len(self.tokenizer.piece_bytes(id)) for id in range(self.tokenizer.vocab_size)
        )
        """A longer text cannot fit into the context; it is refused without encoding it, which would take long."""

    def describe(self) -> dict[str, Any]:
        """The object of `/v1/models`; `max_model_len` is vLLM's name of the context length."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "tinyllm",
            "max_model_len": self.context_length,
        }

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
            raise self._too_long(f"{len(ids):,} tokens", param)
        if not ids:
            raise ApiError(400, f"{param} is empty, and this model has no BOS to begin with; give a text", param=param)
        return ids

    def encode(self, text: str, *, bos: bool = False, allow_special: bool = False, param: str = "prompt") -> list[int]:
        """The ids of `text`. Raises ApiError if it has more bytes than the context can hold, or is not Unicode."""
        num_bytes = len(text.encode(errors="surrogatepass"))
        if num_bytes > self.longest_prompt_bytes:
            raise self._too_long(f"{num_bytes:,} bytes, where {self.longest_prompt_bytes:,} can fit", param)
        try:
            return self.tokenizer.encode(text, bos=bos, allow_special=allow_special)
        except InputError as error:
            raise ApiError(400, f"{param}: {error}", param=param) from None

    def check_ids(self, ids: Sequence[int], param: str) -> list[int]:
        """`ids`. Raises ApiError naming the first that the vocabulary has not."""
        for id in ids:
            if id >= self.tokenizer.vocab_size:
                message = (
                    f"{param}: token id {id} is out of range; the model's ids are 0 to {self.tokenizer.vocab_size - 1}"
                )
                raise ApiError(400, message, param=param)
        return list(ids)

    def _too_long(self, length: str, param: str) -> ApiError:
        message = f"This model's maximum context length is {self.context_length:,} tokens; {param} has {length}"
        return ApiError(400, message, param=param, code="context_length_exceeded")


class Models:
    """The served models; the first is the default."""

    def __init__(self, served: Sequence[ServedModel]) -> None:
        self._by_name = {model.name: model for model in served}
        assert len(self._by_name) == len(served) > 0

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._by_name.values())

    def find(self, name: str | None) -> ServedModel:
        """The model of this name, the first one for None. Raises ApiError for an unknown name."""
        if name is None:
            return next(iter(self))
        if name not in self._by_name:
            raise model_not_found(name)
        return self._by_name[name]


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
