"""Counts the bytes of text in token ids, the denominator of bits per byte.

A tokenizer may add a space before each text that it encodes. The first token after BOS includes this space, which is
not part of the text and not counted.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import SPACE, PieceType

Ids = npt.NDArray[Any]


class TextBytes:
    """Counts text bytes for the ids of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = range(tokenizer.vocab_size)
        self._sizes = np.array([len(tokenizer.piece_bytes(id)) for id in pieces], np.int64)
        starts = [piece.text.startswith(SPACE) and piece.type != PieceType.CONTROL for piece in tokenizer.pieces]
        self._starts_with_space = np.array(starts) & tokenizer.proto.add_dummy_prefix
        self._bos_id = -1 if tokenizer.bos_id is None else tokenizer.bos_id

    def count(self, tokens: Ids, before: Ids) -> int:
        """The bytes of text in `tokens`; `before` (same shape) holds each one's previous token, or -1."""
        added = (before == self._bos_id) & self._starts_with_space[tokens]
        return int(self._sizes[tokens].sum()) - int(np.count_nonzero(added))

    def count_windows(self, windows: Ids) -> int:
        """The bytes of text in the targets [:, 1:] of windows (B, T + 1)."""
        return self.count(windows[:, 1:], windows[:, :-1])
