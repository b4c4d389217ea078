"""Log-probabilities of texts under a model: whole texts, and continuations of a context.

A text begins after BOS where the model expects it. A text longer than the context is read in windows that overlap by
half. So each token after the first window has at least half a context before it.

Shapes: T tokens of a text, B texts of a pass, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tinyllm.errors import InputError
from tinyllm.generation.sampling import not_finite
from tinyllm.progress import SILENT, Progress, Reporter
from tinyllm.tokenizer.codec import Tokenizer

if TYPE_CHECKING:
    from tinyllm.model.transformer import Transformer

Scores = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""For each token of a text, its log-probability and whether it is the likeliest one."""
PASS_BYTES = 2**26
"""Limit of the logits of one pass."""


@dataclass(frozen=True)
class Request:
    """A continuation to score; with an empty context, a whole text."""

    context: str
    text: str


@dataclass(frozen=True)
class Likelihood:
    """The log-probability of one continuation."""

    log_probability: float
    """Natural logarithm of the probability of all its tokens."""
    num_tokens: int
    num_bytes: int
    """Bytes of the text in UTF-8, so that models with different tokenizers can be compared."""
    is_greedy: bool
    """Whether each token is the model's likeliest."""

    @property
    def bits_per_byte(self) -> float:
        """The code length of the text in bits, divided by its bytes."""
        return -self.log_probability / math.log(2) / self.num_bytes


@dataclass(frozen=True)
class _Window:
    """A pass over part of a row: the logits after the tokens from `start` score those from `first` to `end`."""

    row: int
    start: int
    first: int
    end: int


class Scorer:
    """Scores texts with a torch model."""

    def __init__(
        self, model: "Transformer", tokenizer: Tokenizer, reporter: Reporter = SILENT, label: str = "scoring"
    ) -> None:
        """`reporter` is told of each pass, as progress of `label`."""
        self.model, self.tokenizer = model.eval(), tokenizer
        self._reporter, self._label = reporter, label

    @property
    def prefix(self) -> list[int]:
        """The token before each text: BOS where the model expects it, else a token that ends texts, else none."""
        if self.tokenizer.begins_with_bos and self.tokenizer.bos_id is not None:
            return [self.tokenizer.bos_id]
        return sorted(self.tokenizer.end_ids)[:1]

    def score(self, requests: Sequence[Request]) -> list[Likelihood]:
        """The likelihood of each request. Raises InputError for a text without a token to predict."""
        encoded = [self.encode(request) for request in requests]
        scores = self.score_rows([row for row, _ in encoded], [first for _, first in encoded])
        return [
            Likelihood(float(logs.sum()), len(logs), len(request.text.encode()), bool(likeliest.all()))
            for request, (logs, likeliest) in zip(requests, scores, strict=True)
        ]

    def encode(self, request: Request) -> tuple[list[int], int]:
        """The token ids of context and text with the prefix, and the index of the first token of the text.

        Context and text are encoded together. A token that belongs to both counts as one of the text.
        """
        whole = self.prefix + self.tokenizer.encode(request.context + request.text)
        context = self.prefix + (self.tokenizer.encode(request.context) if request.context else [])
        if len(whole) < 2:
            raise InputError(f"the text {request.text[:40]!r} has no token to predict; give a longer one")
        first = 1
        while first < min(len(context), len(whole) - 1) and context[first] == whole[first]:
            first += 1
        return whole, first

    def score_rows(self, rows: Sequence[Sequence[int]], firsts: Sequence[int]) -> list[Scores]:
        """The scores of the tokens of each row of ids, from index `firsts[i]` on; index 0 has none.

        Raises FormatError for log-probabilities that are not finite.
        """
        logs = [np.empty(len(row) - first) for row, first in zip(rows, firsts, strict=True)]
        likeliest = [np.empty(len(row) - first, np.bool_) for row, first in zip(rows, firsts, strict=True)]
        context = self.model.config.context_length
        windows = [
            window
            for number, (row, first) in enumerate(zip(rows, firsts, strict=True))
            for window in _windows(number, first, len(row), context)
        ]
        num_done, num_tokens = 0, sum(map(len, logs))
        for batch in self._batches(windows):
            scores = self._read([rows[window.row][window.start : window.end] for window in batch])
            for window, (log, is_likeliest) in zip(batch, scores, strict=True):
                first, size = firsts[window.row], window.end - window.first
                place = slice(window.first - first, window.end - first)
                logs[window.row][place], likeliest[window.row][place] = log[-size:], is_likeliest[-size:]
                num_done += size
            self._reporter.advance(Progress(self._label, num_done, num_tokens, "tokens"))
        return list(zip(logs, likeliest, strict=True))

    def _batches(self, windows: Sequence[_Window]) -> Iterator[Sequence[_Window]]:
        """The windows by length, the longest first, in batches whose logits fit into `PASS_BYTES`."""
        windows = sorted(windows, key=lambda window: window.start - window.end)
        while windows:
            length = windows[0].end - windows[0].start
            size = max(1, PASS_BYTES // (4 * self.model.config.vocab_size * length))
            yield windows[:size]
            windows = windows[size:]

    def _read(self, rows: Sequence[Sequence[int]]) -> Iterator[Scores]:
        """The scores of each row after its first token, (T - 1,) each."""
        import torch
        import torch.nn.functional as F

        length = max(map(len, rows))
        # Padding is on the right, where a causal model cannot see it.
        tokens = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
        with torch.inference_mode():
            tokens = tokens.to(self.model.output_weight.device)
            logits, targets = self.model(tokens[:, :-1]).float(), tokens[:, 1:]
            losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").double().cpu().numpy()
            likeliest = (logits.argmax(-1) == targets).cpu().numpy()
        for number, row in enumerate(rows):
            if not np.isfinite(losses[number, : len(row) - 1]).all():
                raise not_finite()
            yield -losses[number, : len(row) - 1], likeliest[number, : len(row) - 1]


def _windows(row: int, first: int, length: int, context: int) -> Iterator[_Window]:
    """Windows of at most `context` inputs that score the tokens `first` to `length` of a row."""
    while first < length:
        start = max(0, min(first - max(1, context // 2), length - context - 1))
        end = min(length, start + context + 1)
        yield _Window(row, start, first, end)
        first = end
