"""Encodes a text word by word and caches each word: the ids of SentencePiece, several times as fast.

BPE merges two neighbours only into a piece of the vocabulary. If no piece contains a space after another character,
nothing is merged across the start of a word. The ids of a text are then the concatenated ids of its words.
`splits_at_spaces` checks the vocabulary; with any other vocabulary a text is encoded as a whole.

The ids do not change, and no file is read. A few short texts do not need this module.
"""

import re
from collections.abc import Callable

import numpy as np

from tinyllm.tokenizer.codec import Tokenizer

ID_BYTES = 4
SPACE = "\u2581"
MAX_WORDS = 2**18
"""Limit of cached words; a full cache is emptied, which bounds its memory to some tens of megabytes."""
MAX_WORD_CHARACTERS = 48
"""Longer words, such as whole lines of Chinese, rarely repeat and are not cached."""
# A word with the spaces before it; SentencePiece splits the word itself.
_WORD = re.compile(f"{SPACE}+[^{SPACE}]*")


def cached_encoder(tokenizer: Tokenizer) -> Callable[[str], bytes]:
    """A function that returns the ids of `tokenizer.encode`, with a cache of words if that is exact.

    The ids are returned as bytes of uint32, which are faster to join than arrays.
    """
    if splits_at_spaces(tokenizer):
        return WordCache(tokenizer).encode
    return lambda text: _to_bytes(tokenizer.encode(text))


def _to_bytes(ids: list[int]) -> bytes:
    return np.array(ids, dtype=np.uint32).tobytes()


def splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether encoding word by word is exact: no piece crosses the start of a word."""
    proto = tokenizer.proto
    if not (proto.add_dummy_prefix and proto.byte_fallback and tokenizer.encodes_by_pieces_alone):
        return False
    return not any(SPACE in piece.text.lstrip(SPACE) for piece in proto.pieces)


class WordCache:
    """Encodes texts word by word, for tokenizers that `splits_at_spaces` accepts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._collapses_spaces = tokenizer.proto.remove_extra_whitespaces
        self._words = _Words(tokenizer)

    def __len__(self) -> int:
        """The number of cached words."""
        return len(self._words)

    def encode(self, text: str) -> bytes:
        """Token ids of `text` as bytes of uint32. Raises InputError as `Tokenizer.encode` does."""
        plain = SPACE not in text and "  " not in text and not text.startswith(" ")
        if not text or (self._collapses_spaces and (not plain or text.endswith(" "))):
            return _to_bytes(self._tokenizer.encode(text))
        # SentencePiece adds one space before each text, so a word is looked up without its first space.
        words = text.split(" ") if plain else [word[1:] for word in _WORD.findall(SPACE + text.replace(" ", SPACE))]
        # `map` and `join` run in C: no Python code is executed for each word.
        return b"".join(map(self._words.__getitem__, words))


class _Words(dict[str, bytes]):
    """Maps a word to its ids as bytes of uint32; a missing word is encoded on lookup."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        # An empty word is the space at the end of a text; SentencePiece returns no ids for an empty text.
        content = _to_bytes(self._tokenizer.encode(word) if word else [self._space()])
        if len(word) <= MAX_WORD_CHARACTERS:
            if len(self) >= MAX_WORDS:
                self.clear()
            self[word] = content
        return content

    def _space(self) -> int:
        return next(id for id, piece in enumerate(self._tokenizer.pieces) if piece.text == SPACE)
