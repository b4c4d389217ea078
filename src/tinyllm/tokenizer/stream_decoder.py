"""Decodes token ids one at a time, so that text can be shown while a model generates it."""

from typing import TYPE_CHECKING

from tinyllm.tokenizer.model_proto import SPACE, PieceType

if TYPE_CHECKING:
    from tinyllm.tokenizer.codec import Tokenizer


class StreamDecoder:
    """Decodes a token stream piece by piece; the joined pieces equal `Tokenizer.decode` of all ids.

    Byte tokens are buffered until they form a complete character, so no piece ends inside one.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._pending = b""
        self._at_start = True
        proto = tokenizer.proto
        self._drops_first_space = proto.add_dummy_prefix or proto.remove_extra_whitespaces
        self._drops_all_first_spaces = proto.remove_extra_whitespaces

    def push(self, id: int) -> str:
        """The text that `id` completes, possibly empty. Raises InputError if `id` is out of range."""
        piece = self._tokenizer.pieces[self._tokenizer.check_id(id)]
        if piece.type == PieceType.BYTE:
            text, self._pending = _whole_characters(self._pending + self._tokenizer.piece_bytes(id))
        else:
            text = self.finish()
        self._at_start = self._at_start and not text
        if piece.type in (PieceType.NORMAL, PieceType.USER_DEFINED):
            text += self._without_first_space(piece.text).replace(SPACE, " ")
        elif piece.type == PieceType.UNKNOWN:
            text += self._tokenizer.proto.unk_surface
            self._at_start = self._at_start and not text
        return text

    def finish(self) -> str:
        """One U+FFFD for each buffered byte, because no complete character followed."""
        text, self._pending = "\ufffd" * len(self._pending), b""
        return text

    def _without_first_space(self, piece: str) -> str:
        """Drops the space that encoding adds before a text, or all leading spaces if encoding drops extra ones."""
        if not (self._at_start and self._drops_first_space and piece.startswith(SPACE)):
            self._at_start = False
            return piece
        self._at_start = self._drops_all_first_spaces and piece == SPACE
        return piece[1:]


def _whole_characters(content: bytes) -> tuple[str, bytes]:
    """The characters at the start of `content`, and the bytes of an incomplete character at its end.

    A byte that cannot start a character becomes one U+FFFD, and decoding restarts at the next byte. This is the rule of
    SentencePiece; Python's `errors="replace"` replaces a whole broken sequence by one U+FFFD.
    """
    text = ""
    while content:
        try:
            return text + content.decode(), b""
        except UnicodeDecodeError as error:
            text += content[: error.start].decode()
            content = content[error.start :]
            # Python reports `unexpected end` if a further byte could complete the character.
            if error.reason == "unexpected end of data":
                return text, content
        text += "\ufffd"
        content = content[1:]
    return text, b""
