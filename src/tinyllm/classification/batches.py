"""Sentences as batches of token ids: encoded, cut to the context, padded on the right.

Padding on the right needs no mask: in a causal model no real token attends to a later position. Positions count from 0
as in the sentence alone, and outputs at padded positions are never read. So the result of a sentence does not depend
on its batch. Padding on the left would need a mask and shifted positions.

Shapes: B sentences, T tokens of the longest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllm.progress import Progress, Reporter
from tinyllm.tokenizer.codec import Tokenizer

PAD = 0  # any id works: no real token attends to it


@dataclass(frozen=True)
class Encoded:
    """Token ids of sentences, in their order."""

    rows: list[list[int]]
    num_cut: int
    """Number of sentences that were longer than the limit."""


def encode_sentences(texts: Sequence[str], tokenizer: Tokenizer, limit: int) -> Encoded:
    """Token ids of each text with BOS, cut to the first `limit`."""
    whole = [tokenizer.encode(text, bos=tokenizer.begins_with_bos) for text in texts]
    return Encoded([row[:limit] for row in whole], sum(len(row) > limit for row in whole))


def pad(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Padded tokens (B, T) of `rows` and their lengths without padding (B,), both int64."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], device=device)
    return tokens, torch.tensor([len(row) for row in rows], device=device)


def batches_by_length(rows: Sequence[list[int]], batch_size: int) -> list[list[int]]:
    """The places of all `rows` in batches, shortest rows first."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def predict(
    scorer: Callable[[list[list[int]]], Tensor],
    rows: Sequence[list[int]],
    batch_size: int,
    reporter: Reporter,
    name: str,
) -> list[int]:
    """The label with the highest score for each of `rows`, in their order; `scorer` returns (B, number of labels).

    Rows of similar length share a batch, which keeps padding small. `reporter` receives the number of finished
    batches, with `name`.
    """
    labels = [0] * len(rows)
    batches = batches_by_length(rows, batch_size)
    reporter.advance(Progress(name, 0, len(batches), "batches"))
    for number, places in enumerate(batches, 1):
        for place, label in zip(places, scorer([rows[p] for p in places]).argmax(dim=1).tolist(), strict=True):
            labels[place] = label
        reporter.advance(Progress(name, number, len(batches), "batches"))
    return labels
