"""Sentences as batches of token ids: encoded, cut to the context, padded on the right.

Why on the right, and why no mask: a causal model lets a position see itself and those before it. Padding comes after
the sentence, so no real position ever sees it, and positions count from 0 as in the sentence alone. What the model
makes of the padding itself is never read. So a sentence's result does not depend on its neighbours, and the model
needs no second path; padding on the left would need a mask and shifted positions for the same result.

Shapes: B sentences, T tokens of the longest.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllm.tokenizer.codec import Tokenizer

PAD = 0  # Any id will do: it is never seen.
Track = Callable[[Sequence[list[int]], str], Iterable[list[int]]]
"""Goes through batches, showing how far it is; the text says what they are for."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of sentences, in their order."""

    rows: list[list[int]]
    num_cut: int
    """How many were longer than the limit."""


def encode_sentences(texts: Sequence[str], tokenizer: Tokenizer, limit: int) -> Encoded:
    """BOS and the ids of each text, at most the first `limit` of them."""
    whole = [tokenizer.encode(text, bos=tokenizer.begins_with_bos) for text in texts]
    return Encoded([row[:limit] for row in whole], sum(len(row) > limit for row in whole))


def pad(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """`rows` as tokens (B, T) and their real lengths (B,), both int64."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], device=device)
    return tokens, torch.tensor([len(row) for row in rows], device=device)


def predict(
    scorer: Callable[[list[list[int]]], Tensor],
    rows: Sequence[list[int]],
    batch_size: int,
    track: Track,
    description: str,
) -> list[int]:
    """The best label of each of `rows`, by what `scorer` gives for a batch: (B, number of labels).

    Rows of like length go together, so that little is padded; predictions come in the order of `rows`.
    """
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    labels = [0] * len(rows)
    for places in track(batches, description):
        for place, label in zip(places, scorer([rows[p] for p in places]).argmax(dim=1).tolist(), strict=True):
            labels[place] = label
    return labels
