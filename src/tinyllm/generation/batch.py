"""The generation loop: all samples of one prompt in one batch, token by token, each with its own random stream.

Its inputs are token ids and checked settings; files and defaults are the generator's task.

Shapes: B samples of a batch, V vocabulary.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from tinyllm.config import SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.engines.protocol import Doubles, Engine, Logits, Tokens
from tinyllm.generation.stop_strings import StopStrings
from tinyllm.generation.window import Window
from tinyllm.tokenizer.codec import Tokenizer

FinishReason = Literal["length", "stop", "end"]

UNIFORMS_AT_ONCE = 64
"""Random numbers that a sample draws at once: a call for each number would cost more than choosing the token."""


class Sample:
    """One text while it is generated."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stops: Sequence[str]) -> None:
        self.text = ""
        self.token_ids: list[int] = []
        self.log_probabilities: list[float] = []
        self.finish_reason: FinishReason | None = None
        self._end_ids = tokenizer.end_ids
        self._stops = StopStrings(stops)
        self._decoder = tokenizer.stream()
        for token in prompt_ids:
            # The decoder drops the space before the first word of a text; the first generated word is not the first.
            self._decoder.push(token)

    def add(self, token: int, log_probability: float, *, last: bool) -> str:
        """Appends the next token, unless the text has ended; returns the new text that no stop string can cut off."""
        if self.finish_reason:
            return ""
        self.token_ids.append(token)
        self.log_probabilities.append(log_probability)
        ended = token in self._end_ids
        text = "" if ended else self._decoder.push(token)
        if ended or last:
            text += self._decoder.finish()
        text = self._stops.push(text)
        if self._stops.found:
            self.finish_reason = "stop"
        elif ended or last:
            self.finish_reason = "end" if ended else "length"
            text += self._stops.finish()
        self.text += text
        return text


class Batch:
    """The samples of one prompt; iterating over `pieces` generates them."""

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, prompt_ids: Sequence[int], num_samples: int, config: SamplingConfig
    ) -> None:
        self.samples = [Sample(tokenizer, prompt_ids, config.stop) for _ in range(num_samples)]
        self.seconds = 0.0
        self._config = config
        self._engine = engine
        self._window = Window(engine, np.tile(np.array(prompt_ids, np.int64), (num_samples, 1)))
        self._streams = [sampling.random_stream(config.seed, sample) for sample in range(num_samples)]
        self._seen = np.zeros((num_samples, tokenizer.vocab_size), np.bool_)
        self._seen[:, prompt_ids] = True

    @property
    def slid(self) -> bool:
        """Whether the texts outgrew the context, so that the window moved."""
        return self._window.slid

    @property
    def ended(self) -> bool:
        """Whether every text has ended."""
        return all(sample.finish_reason for sample in self.samples)

    def leave_engine(self) -> None:
        """Moves the batch's cache out of the engine; call `enter_engine` before the next piece."""
        self._window.leave_engine()

    def enter_engine(self) -> None:
        """Moves the batch's cache back into the engine."""
        self._window.enter_engine()

    def pieces(self) -> Iterator[list[str]]:
        """Yields the new text of each sample after each step, until every sample has ended.

        Raises FormatError if the model's logits are not finite.
        """
        start = time.perf_counter()
        logits = self._window.read()
        for step in range(self._config.max_new_tokens):
            tokens, log_probabilities = self._draw(logits, step)
            last = step == self._config.max_new_tokens - 1
            drawn = zip(self.samples, tokens.tolist(), log_probabilities.tolist(), strict=True)
            pieces = [sample.add(token, log_probability, last=last) for sample, token, log_probability in drawn]
            self.seconds = time.perf_counter() - start
            yield pieces
            if self.ended:
                return
            logits = self._window.extend(tokens)

    def _draw(self, logits: Logits, step: int) -> tuple[Tokens, Doubles]:
        """One token for each row of `logits` (B, V) and its log-probability, (B,) each."""
        if step % UNIFORMS_AT_ONCE == 0:
            self._uniforms = np.stack([stream.random(UNIFORMS_AT_ONCE) for stream in self._streams], axis=1)
        uniforms = self._uniforms[step % UNIFORMS_AT_ONCE]
        tokens, log_probabilities = self._engine.choose(logits, self._seen, uniforms, self._config)
        if self._config.repetition_penalty != 1:
            self._seen[np.arange(len(tokens)), tokens] = True
        return tokens, log_probabilities
