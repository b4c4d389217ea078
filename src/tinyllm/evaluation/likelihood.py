"""Log-probabilities of whole texts and of continuations of a context, for many texts at once.

The rules are those of `generation/scoring.py`: a text follows BOS where the model expects it, and one longer than the
context is read in windows.

Shapes: T tokens of a text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinyllm.errors import InputError
from tinyllm.generation.generator import Generator
from tinyllm.generation.sampling import log_probability, not_finite
from tinyllm.generation.scoring import Span, bits_per_byte, calls, first_tokens, windows
from tinyllm.progress import SILENT, Progress, Reporter

TokenScores = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""For each token (T,), its log-probability in nats, and whether it is the likeliest one."""


@dataclass(frozen=True)
class Request:
    """A continuation to score; with an empty context, a whole text."""

    context: str
    text: str


@dataclass(frozen=True)
class Likelihood:
    """The log-probability of one continuation."""

    log_probability: float
    """In nats, of all its tokens together."""
    num_tokens: int
    num_bytes: int
    """Bytes of the text in UTF-8, so that models with different tokenizers can be compared."""
    is_greedy: bool
    """Whether each token is the model's likeliest."""

    @property
    def bits_per_byte(self) -> float:
        """The code length of the text in bits, divided by its bytes."""
        return bits_per_byte(self.log_probability, self.num_bytes)


class Scorer:
    """Scores texts with a loaded model."""

    def __init__(self, generator: Generator, reporter: Reporter = SILENT, label: str = "scoring") -> None:
        """`reporter` is told of each pass, as progress of `label`."""
        self.tokenizer, self._engine = generator.tokenizer, generator.engine
        self._reporter, self._label = reporter, label

    def score(self, requests: Sequence[Request]) -> list[Likelihood]:
        """The likelihood of each request. Raises InputError for a text without a token to predict."""
        encoded = [self.encode(request) for request in requests]
        scores = self.score_rows([row for row, _ in encoded], [first for _, first in encoded])
        return [
            Likelihood(float(logs.sum()), len(logs), len(request.text.encode()), bool(likeliest.all()))
            for request, (logs, likeliest) in zip(requests, scores, strict=True)
        ]

    def encode(self, request: Request) -> tuple[list[int], int]:
        """The token ids of context and text after the first token, and the index of the first token of the text.

        Context and text are encoded together. A token that belongs to both counts as one of the text.
        """
        before = first_tokens(self.tokenizer)
        whole = before + self.tokenizer.encode(request.context + request.text)
        context = before + (self.tokenizer.encode(request.context) if request.context else [])
        if len(whole) < 2:
            raise InputError(f"the text {request.text[:40]!r} has no token to predict; give a longer one")
        first = 1
        while first < min(len(context), len(whole) - 1) and context[first] == whole[first]:
            first += 1
        return whole, first

    def score_rows(self, rows: Sequence[Sequence[int]], firsts: Sequence[int]) -> list[TokenScores]:
        """The scores of the tokens of each row of ids, from index `firsts[i]` > 0 on.

        Raises FormatError for log-probabilities that are not finite.
        """
        scores = [
            (np.empty(len(row) - first), np.empty(len(row) - first, np.bool_))
            for row, first in zip(rows, firsts, strict=True)
        ]
        context = self._engine.context_length
        spans = [
            Span(number, *window)
            for number, (row, first) in enumerate(zip(rows, firsts, strict=True))
            for window in windows(len(row) - 1, context, first - 1)
        ]
        num_done, num_tokens = 0, sum(len(logs) for logs, _ in scores)
        for call in calls(spans, 4 * self._engine.vocab_size):
            read = self._engine.read_logits([np.array(rows[span.row][span.start : span.end]) for span in call])
            for span, logits in zip(call, read, strict=True):
                targets = np.array(rows[span.row][span.first + 1 : span.end + 1])
                own, first = logits[span.first - span.start :], firsts[span.row] - 1
                logs, likeliest = scores[span.row]
                logs[span.first - first : span.end - first] = log_probability(own, targets)
                likeliest[span.first - first : span.end - first] = own.argmax(axis=-1) == targets
                num_done += len(targets)
            self._reporter.advance(Progress(self._label, num_done, num_tokens, "tokens"))
        if not all(np.isfinite(logs).all() for logs, _ in scores):
            raise not_finite()
        return scores
