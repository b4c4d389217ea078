"""The generation loop: the samples of one or more prompts side by side, token by token.

Each prompt is read once. Each sample has its own random stream, and leaves the batch when it ends. Inputs are token ids
and checked settings; files and defaults are the generator's task.

Shapes: B samples that have not ended, V vocabulary.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from tinyllm.config import SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.engines.protocol import ChoosesOnDevice, Doubles, Engine, Logits, Tokens
from tinyllm.generation.stop_strings import StopStrings
from tinyllm.generation.token_choice import TokenChoice
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
        self.pieces: list[str] = []
        """The text that each token completes, before stop strings are cut off."""
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
        self.pieces.append(text)
        text = self._stops.push(text)
        if self._stops.found:
            self.finish_reason = "stop"
        elif ended or last:
            self.finish_reason = "end" if ended else "length"
            text += self._stops.finish()
        self.text += text
        return text


class Batch:
    """The samples of some prompts; iterating over `pieces` generates them."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        prompts: Sequence[Sequence[int]],
        num_samples: int,
        config: SamplingConfig,
    ) -> None:
        """`num_samples` samples of each of `prompts`, prompt after prompt.

        Sample i of a prompt draws from random stream i of the seed, whatever the other prompts are.
        """
        self.samples = [Sample(tokenizer, prompt, config.stop) for prompt in prompts for _ in range(num_samples)]
        self.seconds = 0.0
        self._config = config
        self._choice = TokenChoice(engine, config)
        self._device = engine if isinstance(engine, ChoosesOnDevice) else None
        self._window = Window(engine, prompts, num_samples)
        self._active = list(range(len(self.samples)))
        self._streams = [sampling.random_stream(config.seed, sample) for _ in prompts for sample in range(num_samples)]
        self._uniforms = np.empty((UNIFORMS_AT_ONCE, len(self.samples)))
        self._seen = np.zeros((len(self.samples), tokenizer.vocab_size), np.bool_)
        """One row for each active sample."""
        for number, prompt in enumerate(prompts):
            self._seen[number * num_samples : (number + 1) * num_samples, prompt] = True

    @property
    def slid(self) -> list[bool]:
        """Whether each text outgrew the context, so that its window moved."""
        return self._window.slid

    @property
    def slots(self) -> Mapping[int, int]:
        """The engine's slot of each sample that has one."""
        return self._window.slots

    @property
    def ended(self) -> bool:
        """Whether every text has ended."""
        return not self._active

    def close(self) -> None:
        """Closes all slots; no piece can follow."""
        self._window.close(range(len(self.samples)))

    def pieces(self) -> Iterator[list[str]]:
        """Yields the new text of each sample after each step, until every sample has ended.

        Raises FormatError if the model's logits are not finite.
        """
        start = time.perf_counter()
        tokens, log_probabilities = self._draw(self._window.start(), 0)
        for step in range(self._config.max_new_tokens):
            last = step == self._config.max_new_tokens - 1
            pieces = [""] * len(self.samples)
            drawn = zip(self._active, tokens.tolist(), log_probabilities.tolist(), strict=True)
            for sample, token, log_probability in drawn:
                pieces[sample] = self.samples[sample].add(token, log_probability, last=last)
            tokens = self._leave_ended(tokens)
            self.seconds = time.perf_counter() - start
            yield pieces
            if self.ended:
                return
            tokens, log_probabilities = self._extend(tokens, step + 1)

    def _extend(self, tokens: Tokens, step: int) -> tuple[Tokens, Doubles]:
        """Appends `tokens` (B,) to the active samples; returns the next ones and their log-probabilities, (B,) each."""
        if self._device is None:
            return self._draw(self._window.extend(self._active, tokens), step)
        if not self._window.append(self._active, tokens):
            return self._draw(self._window.read(self._active), step)
        slots = [self._window.slots[sample] for sample in self._active]
        uniforms, generated = self._uniforms_of(step), self._generated()
        drawn = self._device.read_and_choose(slots, tokens, self._seen, uniforms, generated, self._config)
        self._mark(drawn[0])
        return drawn

    def _draw(self, logits: Logits, step: int) -> tuple[Tokens, Doubles]:
        """One token for each row of `logits` (B, V) and its log-probability, (B,) each."""
        drawn = self._choice.choose(logits, self._seen, self._uniforms_of(step), self._generated())
        self._mark(drawn[0])
        return drawn

    def _uniforms_of(self, step: int) -> Doubles:
        """The random number (B,) of each active sample for token `step`."""
        if step % UNIFORMS_AT_ONCE == 0:
            for sample in self._active:
                self._uniforms[:, sample] = self._streams[sample].random(UNIFORMS_AT_ONCE)
        uniforms: Doubles = self._uniforms[step % UNIFORMS_AT_ONCE, self._active]
        return uniforms

    def _generated(self) -> list[list[int]]:
        """The tokens of each active sample."""
        return [self.samples[sample].token_ids for sample in self._active]

    def _mark(self, tokens: Tokens) -> None:
        """Marks `tokens` (B,) as seen, if the choice depends on it."""
        if self._choice.uses_seen:
            self._seen[np.arange(len(tokens)), tokens] = True

    def _leave_ended(self, tokens: Tokens) -> Tokens:
        """Closes the slots of samples that have ended; returns the `tokens` of the others."""
        going = [row for row, sample in enumerate(self._active) if self.samples[sample].finish_reason is None]
        if len(going) == len(self._active):
            return tokens
        self._window.close([sample for sample in self._active if self.samples[sample].finish_reason])
        self._active = [self._active[row] for row in going]
        self._seen = self._seen[going]
        return tokens[going]
