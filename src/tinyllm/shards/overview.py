"""The view of shards in a notebook: sizes, lengths of documents, and the first document by token."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tinyllm import markup
from tinyllm.tokenizer.codec import Tokenizer

NUM_BARS = 32
SHOWN_TOKENS = 120
"""Tokens of the first document that are shown."""


def draw_overview(
    rows: Iterable[tuple[str, str]], lengths: npt.NDArray[np.int64], ids: Iterable[int], tokenizer: Tokenizer
) -> str:
    """The HTML for a table of `rows`, the `lengths` of documents in tokens, and the `ids` of the first document."""
    decoder = tokenizer.stream()
    pieces = [decoder.push(int(id)) for id in ids]
    parts = [markup.table(rows)]
    if len(lengths):
        # A few very long documents would leave one bar for all others: they count in the last one.
        longest = max(float(np.quantile(lengths, 0.99)), float(lengths.min()) + 1)
        counts, edges = np.histogram(lengths.clip(max=longest), bins=NUM_BARS)
        parts.append(markup.histogram(edges.tolist(), counts.tolist(), "length of documents in tokens"))
    parts.append(markup.plain_text(piece for piece in [*pieces, decoder.finish()] if piece))
    return markup.frame(*parts)
