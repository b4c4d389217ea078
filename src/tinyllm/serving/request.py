"""Requests to the scheduler and the news of their texts: plain values, without an engine or a web framework."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tinyllm.config import SamplingConfig
from tinyllm.generation.batch import FinishReason
from tinyllm.generation.engines.protocol import Logits

TOKEN_BYTES, TOP_BYTES = 250, 130
"""Memory of one token with its log-probability, and of each likely token beside it."""


@dataclass(frozen=True)
class TextRequest:
    """One text to generate."""

    prompt_ids: tuple[int, ...]
    """1 to `context_length` token ids, with BOS if the model needs it."""
    sampling: SamplingConfig
    sample: int = 0
    """Random stream of the seed: the text is number `sample` of those that `Generator.generate` returns."""
    top_logprobs: int = 0
    """Number of likeliest tokens to report beside each token."""
    prompt_logprobs: bool = False
    """Whether log-probabilities of the prompt's tokens are reported."""
    prompt_tops: bool = True
    """Whether the likeliest tokens are reported at those tokens too."""
    with_logits: bool = False
    """Whether the logits of each new token are reported."""


class TokenLogprob(NamedTuple):
    """One token with its log-probability under the model alone, in nats."""

    id: int
    log_probability: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place and their log-probabilities, likeliest first."""


class Step(NamedTuple):
    """The news of one text after a step of the engine."""

    text: str
    """New text that no stop string can cut off; it may be empty."""
    tokens: tuple[TokenLogprob, ...]
    """The new tokens."""
    finish_reason: FinishReason | None = None
    """The reason why the text ended; None while it goes on."""
    prompt: tuple[TokenLogprob | None, ...] | None = None
    """The prompt's tokens, in the first step of a request with `prompt_logprobs`; None for a token not predicted."""
    is_first: bool = False
    """Whether this is the text's first step."""
    logits: Logits | None = None
    """The logits (V,) that the new token was drawn from, before adjustments, for a request with `with_logits`."""

    def num_bytes(self, *, keeps_tokens: bool) -> int:
        """Memory of the step until it is taken, without logits; `keeps_tokens` counts tokens beside text."""
        kept = (*self.tokens, *(token for token in self.prompt or () if token)) if keeps_tokens else ()
        return len(self.text) + sum(TOKEN_BYTES + TOP_BYTES * len(token.top) for token in kept)


class Ticket:
    """The handle of submitted texts. `Scheduler.cancel` takes it.

    It counts the bytes of their news: the scheduler adds what it makes, and `Scheduler.release` what was taken.
    """

    def __init__(self, *, keeps_tokens: bool = False, limit_bytes: int | None = None) -> None:
        """The texts wait while more than `limit_bytes` of news are not taken; None lets them go on.

        `keeps_tokens` says whether tokens count beside text.
        """
        self.is_cancelled = False
        self.num_taken_bytes = 0
        self._num_made_bytes = 0
        self._keeps_tokens, self._limit_bytes = keeps_tokens, limit_bytes

    @property
    def is_full(self) -> bool:
        """Whether the texts should wait for their reader."""
        return self._limit_bytes is not None and self._num_made_bytes - self.num_taken_bytes > self._limit_bytes

    def add(self, step: Step | Exception) -> None:
        """Counts news that are made. Only the scheduler's thread calls this."""
        if isinstance(step, Step):
            self._num_made_bytes += step.num_bytes(keeps_tokens=self._keeps_tokens)


Deliver = Callable[[int, Step | Exception], None]
"""Takes the index of a text in its group and its news. An exception is the last news of a text."""
News = tuple[Deliver, int, Step | Exception]


def deliver_all(news: list[News]) -> None:
    """Gives each piece of `news` to the function that waits for it."""
    for deliver, index, step in news:
        deliver(index, step)


class Observer:
    """Receives measurements in the scheduler's thread. This class ignores them; metrics override those they count."""

    def admitted(self, queue_seconds: float) -> None:
        """Called when a text leaves the queue."""

    def first_token(self, seconds: float) -> None:
        """Called with the time from submission to the first token of a text."""

    def step(self, num_read: int, num_prompt: int, num_generated: int, num_reused: int, seconds: float) -> None:
        """Called after each step: tokens read, those of prompts among them, generated, and copied from other texts."""

    def ended(self, num_tokens: int, seconds_per_token: float | None) -> None:
        """Called when a text ends: its tokens, and the mean time between two of them (None for a single token)."""


SILENT = Observer()


@dataclass(frozen=True)
class Stats:
    """The state of a scheduler, and its counts since the start."""

    num_running: int
    """Texts that are read or generated."""
    num_waiting: int
    """Texts in the queue."""
    num_slots: int
    """Texts that can run at once."""
    num_generated: int
    """Tokens generated."""
    num_read: int
    """Tokens read by the engine: prompts, and each generated token that another one follows."""
    num_reused: int
    """Tokens of prompts that were copied from texts with the same beginning."""
