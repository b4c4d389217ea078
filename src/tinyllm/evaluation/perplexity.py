"""Bits per byte of text under a model: of the validation documents of shards, and of any file.

Bits per byte do not depend on the tokenizer: the tokens of shards are decoded, and each model encodes the text by its
own tokenizer. Each document is scored alone, from its beginning. So the figure differs a little from the one of
training, whose windows cross documents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tinyllm.errors import InputError
from tinyllm.evaluation.likelihood import Request, Scorer
from tinyllm.generation.scoring import bits_per_byte, perplexity
from tinyllm.shards.encoding import Tokens
from tinyllm.shards.format import ShardSet, find_document_starts


@dataclass(frozen=True)
class TextFigures:
    """Figures of one text or several, all together."""

    num_documents: int
    num_bytes: int
    num_tokens: int
    """Tokens of the model's own tokenizer."""
    bits_per_byte: float
    nats_per_token: float

    @property
    def perplexity(self) -> float:
        """The perplexity of a token, which depends on the tokenizer; infinite where it exceeds floating point."""
        return perplexity(-self.nats_per_token, 1)


def measure_texts(scorer: Scorer, texts: Sequence[str]) -> TextFigures:
    """The figures of `texts`, of which there is at least one; each is scored alone."""
    scores = scorer.score([Request("", text) for text in texts])
    log_probability = sum(score.log_probability for score in scores)
    num_bytes, num_tokens = sum(score.num_bytes for score in scores), sum(score.num_tokens for score in scores)
    return TextFigures(
        num_documents=len(texts),
        num_bytes=num_bytes,
        num_tokens=num_tokens,
        bits_per_byte=bits_per_byte(log_probability, num_bytes),
        nats_per_token=-log_probability / num_tokens,
    )


def read_validation_texts(shards: ShardSet, max_bytes: int | None = None) -> list[str]:
    """The validation documents of `shards`: all, or evenly spaced ones of about `max_bytes` together.

    Raises InputError if there are none.
    """
    places = [place for array in shards.validation for place in _documents(array, shards.tokenizer.bos_id)]
    if max_bytes is not None and (total := shards.validation_counts.text_bytes) > max_bytes:
        num_chosen = max(1, len(places) * max_bytes // total)
        places = [places[number * len(places) // num_chosen] for number in range(num_chosen)]
    texts = [shards.tokenizer.decode(place.tolist()) for place in places]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError(f"{shards.path} has no validation text; prepare more text, or name other shards")
    return texts


def _documents(array: Tokens, bos_id: int | None) -> Iterator[Tokens]:
    """The documents of one array of ids."""
    if len(array):
        starts = find_document_starts(array, bos_id).tolist()
        yield from (array[start:end] for start, end in pairwise([*starts, len(array)]))
