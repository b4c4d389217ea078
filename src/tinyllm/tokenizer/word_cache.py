"""Encode a text word by word, each distinct word once: the ids of SentencePiece, several times as fast.

BPE joins two neighbours only into a piece of the vocabulary. If no piece has a space after another character, then
nothing is ever joined across the place where a word ends and its space begins, so the ids of a text are those of its
words one after another. Whether a vocabulary is like that is looked up; one that is not is encoded as a whole.

It changes no id and reads no file; who encodes a few short texts needs none of it.
"""

import re
from collections.abc import Callable

import numpy as np

from tinyllm.tokenizer.codec import Tokenizer

ID_BYTES = 4
SPACE = "\u2581"
MAX_WORDS = 2**18
"""Words that are remembered; then the memory is emptied, which bounds it at some tens of megabytes."""
MAX_WORD_CHARACTERS = 48
"""Longer words, such as whole lines of Chinese, hardly come twice."""
# A word with the spaces before it; what is inside is up to SentencePiece.
_WORD = re.compile(f"{SPACE}+[^{SPACE}]*")


def cached_encoder(tokenizer: Tokenizer) -> Callable[[str], bytes]:
    """A function that gives the ids that `tokenizer.encode` gives, and remembers words if that is exact.

    The ids are uint32 in bytes: whoever encodes many texts joins these faster than arrays.
    """
    if splits_at_spaces(tokenizer):
        return WordCache(tokenizer).encode
    return lambda text: _to_bytes(tokenizer.encode(text))


def _to_bytes(ids: list[int]) -> bytes:
    return np.array(ids, dtype=np.uint32).tobytes()


def splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether encoding word by word gives the ids of the whole: no piece goes over the end of a word."""
    proto = tokenizer.proto
    if not (proto.add_dummy_prefix and proto.byte_fallback and tokenizer.encodes_by_pieces_alone):
        return False
    return not any(SPACE in piece.text.lstrip(SPACE) for piece in proto.pieces)


class WordCache:
    """Encodes by the word. For tokenizers that `splits_at_spaces` says yes to."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._collapses_spaces = tokenizer.proto.remove_extra_whitespaces
        self._words = _Words(tokenizer)

    def __len__(self) -> int:
        """Words remembered now."""
        return len(self._words)

    def encode(self, text: str) -> bytes:
        """Token ids of `text` as uint32 in bytes. Raises InputError as `Tokenizer.encode` does."""
        plain = SPACE not in text and "  " not in text and not text.startswith(" ")
        if not text or (self._collapses_spaces and (not plain or text.endswith(" "))):
            return _to_bytes(self._tokenizer.encode(text))
        # SentencePiece puts one space before each text it is given, so a word is looked up without its first one.
        words = text.split(" ") if plain else [word[1:] for word in _WORD.findall(SPACE + text.replace(" ", SPACE))]
        # No Python runs a word: the lookups, and the joining of their ids as bytes, are loops of the interpreter's own.
        return b"".join(map(self._words.__getitem__, words))


class _Words(dict[str, bytes]):
    """The ids of words as uint32 in bytes; one that is not there yet is encoded when it is asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        # An empty word is the space at the end of a text, to which SentencePiece, given nothing, would say nothing.
        content = _to_bytes(self._tokenizer.encode(word) if word else [self._space()])
        if len(word) <= MAX_WORD_CHARACTERS:
            if len(self) >= MAX_WORDS:
                self.clear()
            self[word] = content
        return content

    def _space(self) -> int:
        return next(id for id, piece in enumerate(self._tokenizer.pieces) if piece.text == SPACE)
