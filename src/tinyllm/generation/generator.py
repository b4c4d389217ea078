"""The public interface of generation: prompt and settings in, texts out, whole or as a stream.

`generate` and `stream` run the same loop: with the same seed, the pieces of a stream join to the text of `generate`.
Any number of threads may use one generator: texts take turns on its engine (see `turns`), and each has its own slots
there. A generator works with any engine; torch is imported only if `load` chooses the torch engine.
"""

import operator
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinyllm.config import ModelConfig, SamplingConfig, wrong_setting
from tinyllm.errors import ConfigError, InputError, UsageError
from tinyllm.generation.batch import Batch, FinishReason
from tinyllm.generation.engines.protocol import Engine
from tinyllm.generation.turns import Turns
from tinyllm.machine.memory import check_memory
from tinyllm.model.size import num_parameters
from tinyllm.tokenizer.codec import Tokenizer

SAMPLE_BYTES, TOKEN_BYTES = 4096, 64
"""Memory outside the engine for each sample (random stream, decoder, lists), and for each token of a sample."""


@dataclass(frozen=True)
class Generation:
    """One generated text."""

    prompt: str
    """The text that it continues."""
    text: str
    """The continuation alone."""
    token_ids: list[int]
    """Every token drawn, including the one that ended the text."""
    log_probabilities: list[float]
    """Log-probability of each token under the model, before temperature and filters, in nats."""
    finish_reason: FinishReason
    """The reason why the text ended: `length` (max_new_tokens), `stop` (a stop string) or `end` (an end token)."""
    slid: bool
    """Whether the text outgrew the context, so that the window dropped its beginning."""
    seconds: float
    """Time from the prompt to the last token; the same for all samples of a batch."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens of this text per second."""
        return len(self.token_ids) / self.seconds


class TextStream(Iterator[str]):
    """Iterates over the pieces of one text as they are generated; no piece ends inside a character.

    Any thread may generate other texts between two pieces. An unfinished stream needs no closing.
    """

    def __init__(self, prompt: str, batch: Batch, turns: Turns) -> None:
        self._prompt = prompt
        self._batch = batch
        self._pieces = batch.pieces()
        self._turns = turns
        weakref.finalize(self, turns.abandon, batch.slots).atexit = False

    def __repr__(self) -> str:
        state = "ended" if self._batch.ended else "open"
        return f"<TextStream {state}, {len(self._batch.samples[0].token_ids)} tokens>"

    def __next__(self) -> str:
        with self._turns.take():
            try:
                return next(piece for (piece,) in self._pieces if piece)
            except BaseException:  # the end, an error or an interrupt: no piece follows
                self._batch.close()
                raise

    @property
    def generation(self) -> Generation:
        """The whole result; generates the remaining pieces first."""
        for _ in self:
            pass
        return _results(self._prompt, self._batch)[0]


class Generator:
    """A loaded model with its tokenizer. Make one with `tinyllm.load`."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, config: ModelConfig, path: Path | None = None) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.config = config
        self.path = path
        """The model directory or file that it was loaded from; None for a model in memory."""
        self._turns = Turns(engine)

    def __repr__(self) -> str:
        millions = num_parameters(self.config) / 1e6
        return f"<Generator {self.path or 'in memory'}, {millions:.1f} M parameters, {self.engine.description}>"

    def generate(
        self,
        prompt: str | Sequence[int] = "",
        *,
        num_samples: int = 1,
        sampling: SamplingConfig | None = None,
        **settings: Any,
    ) -> list[Generation]:
        """`num_samples` continuations of `prompt`, generated in one batch; "" begins from BOS alone.

        A prompt of token ids is used unchanged: include BOS if the model needs it.

        `settings` are fields of `SamplingConfig` and override those of `sampling`. Sample i does not depend on
        `num_samples`. Raises ConfigError for a setting out of range, and ResourceError for more samples than memory
        holds. Raises UsageError for a prompt that is neither a text nor token ids, and InputError for one longer than
        the context.

        >>> tinyllm.load().generate("Once upon a time", temperature=0)[0].text  # doctest: +SKIP
        ', there was a little girl named Lily. ...'
        """
        batch = self._batch(prompt, num_samples, sampling, settings)
        with self._turns.take():
            try:
                for _ in batch.pieces():
                    pass
            finally:
                batch.close()
        return _results(self._prompt_text(prompt), batch)

    def stream(
        self, prompt: str | Sequence[int] = "", *, sampling: SamplingConfig | None = None, **settings: Any
    ) -> TextStream:
        """A stream of the pieces of one continuation of `prompt`; `stream.generation` is the whole result.

        Arguments and errors are those of `generate`.
        """
        batch = self._batch(prompt, 1, sampling, settings)
        return TextStream(self._prompt_text(prompt), batch, self._turns)

    def _batch(
        self, prompt: str | Sequence[int], num_samples: int, config: SamplingConfig | None, settings: dict[str, Any]
    ) -> Batch:
        if not isinstance(num_samples, Integral):
            raise UsageError(f"num_samples is {num_samples!r}; it should be a whole number", parameter="num_samples")
        if num_samples < 1:
            raise ConfigError(f"num_samples is {num_samples}; at least 1 is needed", parameter="num_samples")
        merged = sampling_config(**{**(config.model_dump() if config else {}), **settings})
        ids = self._prompt_ids(prompt)
        self._check_memory(num_samples, len(ids), merged.max_new_tokens)
        return Batch(self.engine, self.tokenizer, [ids], num_samples, merged)

    def _check_memory(self, num_samples: int, num_prompt_tokens: int, max_new_tokens: int) -> None:
        """Raises ResourceError if `num_samples` samples do not fit into memory; called before any allocation."""
        num_positions = min(num_prompt_tokens + max_new_tokens, self.engine.context_length)
        needed = self.engine.missing_bytes(num_samples, num_positions)
        what = f"num_samples {num_samples} with a context of {self.engine.context_length} tokens"
        sample_bytes = self.tokenizer.vocab_size + SAMPLE_BYTES + num_positions * TOKEN_BYTES
        advice, name = "use fewer samples, or call again for more", "num_samples"
        check_memory(what, needed, advice, self.engine.available_bytes(), parameter=name)
        check_memory(what, num_samples * sample_bytes, advice, parameter=name)

    def _prompt_text(self, prompt: str | Sequence[int]) -> str:
        return prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt)

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt, bos=self.tokenizer.begins_with_bos)
        else:
            ids = [self.tokenizer.check_id(id) for id in _whole_numbers(prompt)]
        if not ids:
            raise InputError("the prompt is empty, and this model has no BOS to begin with; give a prompt")
        if len(ids) > self.engine.context_length:
            raise InputError(
                f"the prompt has {len(ids)} tokens, but the model's context is {self.engine.context_length}; shorten it"
            )
        return ids


def _whole_numbers(prompt: object) -> list[int]:
    """The token ids in `prompt`. Raises UsageError naming the first item that is no whole number."""
    if isinstance(prompt, bytes) or not isinstance(prompt, Iterable):
        raise UsageError(f"prompt is {prompt!r}; give a text, or a list of token ids", parameter="prompt")
    numbers = []
    for place, item in enumerate(prompt):
        try:
            numbers.append(operator.index(item))
        except TypeError:
            raise UsageError(
                f"prompt[{place}] is {item!r}; a token id is a whole number, and several texts are several calls",
                parameter="prompt",
            ) from None
    return numbers


def sampling_config(**settings: Any) -> SamplingConfig:
    """A `SamplingConfig` of `settings`. Raises ConfigError naming the first that is unknown or out of range."""
    try:
        return SamplingConfig(**settings)
    except ValidationError as error:
        raise wrong_setting(error) from None


def _results(prompt: str, batch: Batch) -> list[Generation]:
    return [
        Generation(
            prompt=prompt,
            text=sample.text,
            token_ids=sample.token_ids,
            log_probabilities=sample.log_probabilities,
            finish_reason=sample.finish_reason or "length",
            slid=slid,
            seconds=batch.seconds,
        )
        for sample, slid in zip(batch.samples, batch.slid, strict=True)
    ]
