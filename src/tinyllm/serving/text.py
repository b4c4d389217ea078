"""One text of the scheduler, from its request to its last token, and the part of its window that a slot holds."""

from collections.abc import Iterator
from time import perf_counter

import numpy as np

from tinyllm.generation import sampling
from tinyllm.generation.batch import UNIFORMS_AT_ONCE, Sample
from tinyllm.generation.engines.protocol import Logits
from tinyllm.generation.token_choice import TokenChoice
from tinyllm.generation.window import append
from tinyllm.serving.request import Deliver, News, Step, TextRequest, Ticket, TokenLogprob
from tinyllm.tokenizer.codec import Tokenizer


class PromptScores:
    """The log-probabilities of a prompt's tokens, found once for all texts of a request with this prompt."""

    def __init__(self, ids: tuple[int, ...], num_top: int) -> None:
        """`num_top` is the number of likeliest tokens in the place of each token."""
        self._ids, self._num_top = ids, num_top
        self.tokens: list[TokenLogprob | None] = [None]
        """The first tokens of the prompt. The very first one is not predicted: None."""

    @property
    def is_complete(self) -> bool:
        """Whether every token has its log-probability."""
        return len(self.tokens) == len(self._ids)

    def restart(self) -> None:
        """Forgets what was found: another text reads the prompt from its beginning."""
        del self.tokens[1:]

    def add(self, logits: Logits) -> None:
        """Adds the next T tokens, which `logits` (T, V) predict."""
        first, count = len(self.tokens), self._num_top
        ids = self._ids[first : first + len(logits)]
        found = sampling.log_probability(logits, np.array(ids, np.int64)).tolist()
        self.tokens += [
            TokenLogprob(token, number, likeliest(row, token, number, count) if count else ())
            for token, number, row in zip(ids, found, logits, strict=True)
        ]


class Arrival:
    """A request in the queue."""

    def __init__(
        self, request: TextRequest, index: int, ticket: Ticket, deliver: Deliver, scores: PromptScores | None = None
    ) -> None:
        self.request, self.index, self.ticket, self.deliver, self.scores = request, index, ticket, deliver, scores
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
        self.scores = arrival.scores
        """The scores of the prompt, which other texts may share; None if they are not asked for."""
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
    def is_scored(self) -> bool:
        """Whether the prompt is still to be scored, while this text or another one reads it."""
        return self.scores is not None and not self.scores.is_complete

    @property
    def num_unread_of_prompt(self) -> int:
        """Tokens of the prompt that were not read yet."""
        return 0 if self.slid else max(len(self.arrival.request.prompt_ids) - self.held, 0)

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
        is_first = len(sample.token_ids) == 1
        prompt = tuple(self.scores.tokens) if is_first and self.scores is not None else None
        kept = logits.copy() if self.arrival.request.with_logits else None
        return Step(piece, (TokenLogprob(token, log_probability, top),), sample.finish_reason, prompt, is_first, kept)


def likeliest(logits: Logits, token: int, log_probability: float, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens by `logits` (V,) with their log-probabilities, given that of one `token`."""
    ids = np.argpartition(logits, -count)[-count:]
    ranked = sorted(ids.tolist(), key=lambda id: (-logits[id], id))
    drawn = float(logits[token])
    return tuple((id, log_probability + (float(logits[id]) - drawn)) for id in ranked)


def _uniforms(seed: int, sample: int) -> Iterator[float]:
    """The random numbers of one sample, one a token."""
    stream = sampling.random_stream(seed, sample)
    while True:
        yield from stream.random(UNIFORMS_AT_ONCE).tolist()
