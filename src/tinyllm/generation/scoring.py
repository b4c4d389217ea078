"""Log-probabilities of given texts: which tokens, bits and perplexities a model gives them.

A text is read after a first token, BOS where the model expects it, so that every token of the text is predicted. A text
longer than the context is read in windows that overlap by half (see `windows`). Each token is scored once.

Shapes: T tokens of a text, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinyllm.errors import InputError
from tinyllm.generation import sampling
from tinyllm.generation.engines.protocol import Doubles, Engine, Logits, Tokens
from tinyllm.tokenizer.codec import Tokenizer

CALL_BYTES = 2**25
"""Bytes of logits that one call of the engine may compute, if it reads more than one window."""
LARGEST_EXPONENT = 700
"""Above this many nats, a perplexity is infinite in floating point."""


@dataclass(frozen=True)
class Score:
    """Log-probabilities of one text under a model."""

    text: str
    token_ids: list[int]
    """The tokens that are predicted: all of the text, without BOS."""
    pieces: list[str]
    """The piece of each token, such as `▁the`."""
    log_probabilities: list[float]
    """Log-probability of each token after the tokens before it, in nats."""
    num_bytes: int
    """Bytes of the predicted text in UTF-8."""
    engine: str
    """The engine and the precision of its weights, such as `CPU engine, int8 weights, 1 thread`."""

    @property
    def log_probability(self) -> float:
        """Log-probability of the whole text, in nats."""
        return math.fsum(self.log_probabilities)

    @property
    def bits_per_byte(self) -> float:
        """Bits to code one byte of the text; models with different vocabularies can be compared by it."""
        return bits_per_byte(self.log_probability, self.num_bytes)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean loss of a token; it depends on the vocabulary. Infinite beyond floating point."""
        return perplexity(self.log_probability, len(self.token_ids))

    def __repr__(self) -> str:
        return (
            f"<Score {len(self.token_ids)} tokens, {self.log_probability:.2f} nats, "
            f"{self.bits_per_byte:.3f} bits per byte, perplexity {self.perplexity:.2f}>"
        )


@dataclass(frozen=True)
class Total:
    """The figures of several texts together."""

    num_bytes: int
    num_tokens: int
    log_probability: float
    """Sum over all texts, in nats."""

    @property
    def bits_per_byte(self) -> float:
        """Bits to code one byte of the texts."""
        return bits_per_byte(self.log_probability, self.num_bytes)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean loss of a token; infinite beyond floating point."""
        return perplexity(self.log_probability, self.num_tokens)


def add_up(scores: Sequence[Score]) -> Total:
    """The figures of all `scores` together."""
    return Total(
        sum(score.num_bytes for score in scores),
        sum(len(score.token_ids) for score in scores),
        math.fsum(score.log_probability for score in scores),
    )


def bits_per_byte(log_probability: float, num_bytes: int) -> float:
    """Bits for each of `num_bytes` bytes of a text with this log-probability in nats."""
    return -log_probability / math.log(2) / num_bytes


def perplexity(log_probability: float, num_tokens: int) -> float:
    """exp(-log_probability / num_tokens); infinite beyond floating point."""
    nats = -log_probability / num_tokens
    return math.exp(nats) if nats < LARGEST_EXPONENT else math.inf


def score_texts(engine: Engine, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Score]:
    """The score of each text. Raises InputError for a text without a token to predict, FormatError as the next one."""
    before = first_tokens(tokenizer)
    ids = [before + tokenizer.encode(text) for text in texts]
    for number, row in enumerate(ids):
        if len(row) < 2:
            what = "the text" if len(texts) == 1 else f"text {number + 1} of {len(texts)}"
            raise InputError(f"{what} has no token to predict; give some text")
    rows = log_probabilities(engine, [np.array(row, np.int64) for row in ids])
    return [
        Score(
            text=text,
            token_ids=row[1:],
            pieces=[tokenizer.id_to_piece(id) for id in row[1:]],
            log_probabilities=numbers.tolist(),
            num_bytes=len(text.encode()) - (0 if before else len(tokenizer.decode(row[:1]).encode())),
            engine=engine.description,
        )
        for text, row, numbers in zip(texts, ids, rows, strict=True)
    ]


def first_tokens(tokenizer: Tokenizer) -> list[int]:
    """The token before a text: BOS where the model expects it, else a token that ends texts.

    Empty for a tokenizer with neither: there the first token of a text cannot be predicted.
    """
    if tokenizer.begins_with_bos and tokenizer.bos_id is not None:
        return [tokenizer.bos_id]
    return sorted(tokenizer.end_ids)[:1]


def log_probabilities(engine: Engine, rows: Sequence[Tokens]) -> list[Doubles]:
    """Log-probability (T - 1,) in nats of each token but the first of every row of ids (T,), T > 1.

    Rows may be of any lengths; those that exceed the context are read in windows. Raises FormatError if the model's
    logits are not finite.
    """
    found = [np.empty(len(row) - 1) for row in rows]
    spans = [
        Span(number, *window)
        for number, row in enumerate(rows)
        for window in windows(len(row) - 1, engine.context_length)
    ]
    for call in calls(spans, 4 * engine.vocab_size):
        read = engine.read_logits([rows[span.row][span.start : span.end] for span in call])
        for span, logits in zip(call, read, strict=True):
            targets = rows[span.row][span.first + 1 : span.end + 1]
            found[span.row][span.first : span.end] = _log_probability(logits[span.first - span.start :], targets)
    return found


class Span(NamedTuple):
    """One window of a row: the tokens from `start` to `end` are read, and those from `first` are its own."""

    row: int
    start: int
    first: int
    end: int


def windows(num_tokens: int, context_length: int, first: int = 0) -> Iterator[tuple[int, int, int]]:
    """`start`, `first` and `end` of each window over `num_tokens` tokens, at most `context_length` long.

    A window reads the tokens from `start` to `end`, and those from `first` on belong to it. The given `first` begins
    the tokens of the first window. A window that does not start the text has at least half a context before its
    `first`. The last one ends with the text.
    """
    while first < num_tokens:
        start = max(0, min(first - context_length // 2, num_tokens - context_length))
        end = min(num_tokens, start + context_length)
        yield start, first, end
        first = end


def calls(spans: Sequence[Span], token_bytes: int) -> Iterator[list[Span]]:
    """The spans, longest first, in calls of at most `CALL_BYTES`: an engine may pad texts to the longest of a call."""
    rest = sorted(spans, key=lambda span: span.start - span.end)
    while rest:
        size = max(1, CALL_BYTES // (token_bytes * (rest[0].end - rest[0].start)))
        yield rest[:size]
        rest = rest[size:]


def _log_probability(logits: Logits, targets: Tokens) -> Doubles:
    """Log-probability (T,) of `targets` (T,) under `logits` (T, V). Raises FormatError if one is not finite."""
    found = sampling.log_probability(logits, targets)
    if not np.isfinite(found).all():
        raise sampling.not_finite()
    return found
