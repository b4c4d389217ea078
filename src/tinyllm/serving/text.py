"""One text of the scheduler, from its request to its last token, and the part of its window that a slot holds."""

from collections.abc import Iterator, Sequence
from time import perf_counter

import numpy as np

from tinyllm.generation import sampling
from tinyllm.generation.batch import UNIFORMS_AT_ONCE, Sample
from tinyllm.generation.engines.protocol import Logits
from tinyllm.generation.token_choice import TokenChoice
from tinyllm.generation.window import append
from tinyllm.serving.request import Deliver, News, Step, TextRequest, Ticket, TokenLogprob
from tinyllm.tokenizer.codec import Tokenizer


class Arrival:
    """A request in the queue."""

    def __init__(self, request: TextRequest, index: int, ticket: Ticket, deliver: Deliver) -> None:
        self.request, self.index, self.ticket, self.deliver = request, index, ticket, deliver
        self.time = perf_counter()

    def news(self, step: Step | Exception) -> News:
        """`step` with its addressee, counted by the ticket."""
        self.ticket.add(step)
        return self.deliver, self.index, step


class Text:
    """A text that runs: its slot holds the first `held` tokens of its `window`, and the others are to be read."""

    def __init__(self, arrival: Arrival, tokenizer: Tokenizer, choice: TokenChoice) -> None:
        request = arrival.request
        self.arrival, self.choice = arrival, choice
        self._max_new_tokens, self._num_top = request.sampling.max_new_tokens, request.top_logprobs
        self.window = list(request.prompt_ids)
        self.slot: int | None = None
        self.held = 0
        self.slid = False
        """Whether the text outgrew the context: its window does not begin with the prompt."""
        self.prompt: tuple[TokenLogprob | None, ...] | None = None
        self.start = self.first_time = self.last_time = perf_counter()
        self.sample = Sample(tokenizer, request.prompt_ids, request.sampling.stop)
        self.uniforms = _uniforms(request.sampling.seed, request.sample)
        self.seen = np.zeros(tokenizer.vocab_size if choice.uses_seen else 0, np.bool_)
        if choice.uses_seen:
            self.seen[self.window] = True

    @property
    def num_unread(self) -> int:
        """Tokens of the window that the slot does not hold; the last one gives the logits of the next token."""
        return len(self.window) - self.held

    @property
    def waits_for_reader(self) -> bool:
        """Whether the next token has to wait until news of the request are taken."""
        return self.num_unread == 1 and self.arrival.ticket.is_full

    @property
    def sharable(self) -> int:
        """Tokens of the window that another text may copy, or wait for while a prompt is read."""
        return len(self.window) if self.num_unread > 1 else self.held

    @property
    def seconds_per_token(self) -> float | None:
        """Mean time between two tokens; None if there are fewer."""
        count = len(self.sample.token_ids)
        return (self.last_time - self.first_time) / (count - 1) if count > 1 else None

    def add(self, token: int, log_probability: float, logits: Logits, context_length: int) -> Step:
        """Appends the next token, drawn from `logits` (V,). The window slides if it exceeds `context_length`."""
        sample = self.sample
        last = len(sample.token_ids) + 1 == self._max_new_tokens
        piece = sample.add(token, log_probability, last=last)
        if self.choice.uses_seen:
            self.seen[token] = True
        if sample.finish_reason is None and append(self.window, token, context_length):
            self.slid, self.held = True, 0
        top = likeliest(logits, token, log_probability, self._num_top) if self._num_top else ()
        prompt, self.prompt = self.prompt, None
        is_first = len(sample.token_ids) == 1
        kept = logits.copy() if self.arrival.request.with_logits else None
        return Step(piece, (TokenLogprob(token, log_probability, top),), sample.finish_reason, prompt, is_first, kept)


def likeliest(logits: Logits, token: int, log_probability: float, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens by `logits` (V,) with their log-probabilities, given that of one `token`."""
    ids = np.argpartition(logits, -count)[-count:]
    ranked = sorted(ids.tolist(), key=lambda id: (-logits[id], id))
    drawn = float(logits[token])
    return tuple((id, log_probability + (float(logits[id]) - drawn)) for id in ranked)


def prompt_logprobs(ids: Sequence[int], logits: Logits, count: int) -> tuple[TokenLogprob | None, ...]:
    """Each of `ids` (T,) with its log-probability by `logits` (T, V) and the `count` likeliest tokens there.

    The first token is not predicted: None. Raises FormatError for logits that are not finite.
    """
    rows, targets = logits[:-1], np.array(ids[1:], np.int64)
    if not np.isfinite(logits).all():
        raise sampling.not_finite()
    found = sampling.log_probability(rows, targets).tolist() if len(targets) else []
    return (
        None,
        *(
            TokenLogprob(token, number, likeliest(row, token, number, count) if count else ())
            for token, number, row in zip(ids[1:], found, rows, strict=True)
        ),
    )


def _uniforms(seed: int, sample: int) -> Iterator[float]:
    """The random numbers of one sample, one a token."""
    stream = sampling.random_stream(seed, sample)
    while True:
        yield from stream.random(UNIFORMS_AT_ONCE).tolist()
