"""Bytes of text that token ids stand for: what bits per byte are counted by.

A tokenizer may put a space before each text that it encodes. The first token of a document holds this space, which is
not in the text, so it is not counted. A document begins after BOS.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.tokenizer.codec import SPACE, Tokenizer
from tinyllm.tokenizer.model_proto import PieceType

Ids = npt.NDArray[Any]


class TextBytes:
    """Counts the bytes of ids of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = range(tokenizer.vocab_size)
        self._sizes = np.array([len(tokenizer.piece_bytes(id)) for id in pieces], np.int64)
        starts = [piece.text.startswith(SPACE) and piece.type != PieceType.CONTROL for piece in tokenizer.pieces]
        self._starts_with_space = np.array(starts) & tokenizer.proto.add_dummy_prefix
        self._bos_id = -1 if tokenizer.bos_id is None else tokenizer.bos_id

    def count(self, tokens: Ids, before: Ids) -> int:
        """Bytes of text in `tokens`; `before` (same shape) holds the token before each of them, or -1."""
        added = (before == self._bos_id) & self._starts_with_space[tokens]
        return int(self._sizes[tokens].sum()) - int(np.count_nonzero(added))

    def count_windows(self, windows: Ids) -> int:
        """Bytes of text that windows (B, T + 1) predict: of every token but the first of each row."""
        return self.count(windows[:, 1:], windows[:, :-1])
