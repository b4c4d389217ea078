"""Reads and writes llama2.c's `tokenizer.bin`: each token's text and score.

The file has neither types nor settings; both are inferred from llama2.c's texts. BOS and EOS stand between line feeds,
bytes are `<0x0A>`, spaces are spaces. A vocabulary without a run of two spaces comes from SentencePiece with
`remove_extra_whitespaces`, so that setting is on; Llama 2's vocabulary has such runs.

The layout is that of `tokenizer.py` and `run.c` in karpathy/llama2.c.
"""

import struct
from pathlib import Path

from tinyllm.errors import FormatError
from tinyllm.tokenizer.byte_level import ByteLevelTokenizer
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import MODEL_LIMIT_BYTES, SPACE, Piece, PieceType
from tinyllm.tokenizer.proto_writer import write_model_proto

SPECIAL = {"\n<s>\n": "<s>", "\n</s>\n": "</s>"}
"""llama2.c's texts of BOS and EOS -> SentencePiece's."""
UNKNOWN_ID, BOS_ID, EOS_ID = 0, 1, 2
"""Constants in `run.c`, which no file stores."""
FIRST_BYTE_ID = 3

_LONGEST = struct.Struct("<I")
_ENTRY = struct.Struct("<fI")


def tokenizer_to_bin(tokenizer: Tokenizer) -> bytes:
    """The bytes of the `tokenizer.bin` for `tokenizer`.

    Raises FormatError if BOS and EOS are not 1 and 2, or bytes not 3 to 258, which are constants in llama2.c.
    """
    if isinstance(tokenizer, ByteLevelTokenizer):
        raise FormatError(
            f"{tokenizer.name} is a byte-level BPE tokenizer, which llama2.c's tokenizer.bin cannot store"
        )
    found = (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id)
    if found != (UNKNOWN_ID, BOS_ID, EOS_ID):
        raise FormatError(f"{tokenizer.name} has unk, bos, eos at {found}; llama2.c needs them at 0, 1, 2")
    first_byte = next((id for id, piece in enumerate(tokenizer.pieces) if piece.type == PieceType.BYTE), FIRST_BYTE_ID)
    if first_byte != FIRST_BYTE_ID:
        raise FormatError(f"{tokenizer.name} has its bytes from id {first_byte} on; llama2.c needs them from 3 on")
    entries = [(_to_llama2c(id, piece), piece.score) for id, piece in enumerate(tokenizer.pieces)]
    longest = max(len(text) for text, _ in entries)
    return _LONGEST.pack(longest) + b"".join(_ENTRY.pack(score, len(text)) + text for text, score in entries)


def read_tokenizer_bin(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.bin`. Raises FormatError if it is damaged."""
    size = path.stat().st_size
    if size > MODEL_LIMIT_BYTES:
        raise FormatError(f"{path} has {size} bytes; expected at most {MODEL_LIMIT_BYTES}")
    pieces = _to_pieces(_read_entries(path.read_bytes(), path), path)
    proto = write_model_proto(
        pieces,
        unk_id=UNKNOWN_ID,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        remove_extra_whitespaces=not any(SPACE * 2 in piece.text for piece in pieces),
    )
    return Tokenizer.from_bytes(proto, str(path))


def _read_entries(content: bytes, path: Path) -> list[tuple[str, float]]:
    """Text and score of each token in the file."""
    if len(content) < _LONGEST.size:
        raise FormatError(
            f"{path} has {len(content)} bytes, expected the length of the longest token in {_LONGEST.size}"
        )
    (longest,) = _LONGEST.unpack_from(content)
    entries: list[tuple[str, float]] = []
    position, found_longest = _LONGEST.size, 0
    while position < len(content):
        left = len(content) - position - _ENTRY.size
        if left < 0:
            raise FormatError(f"{path} ends inside token {len(entries)}, at byte {position}")
        score, length = _ENTRY.unpack_from(content, position)
        position += _ENTRY.size
        if length > min(left, longest):
            limit = f"{left} are left" if length > left else f"max_token_length is {longest}"
            raise FormatError(f"{path}: token {len(entries)} has length {length} at byte {position}, but {limit}")
        try:
            entries.append((content[position : position + length].decode(), score))
        except UnicodeDecodeError:
            raise FormatError(f"{path}: token {len(entries)} at byte {position} is not valid UTF-8") from None
        position += length
        found_longest = max(found_longest, length)
    if longest != found_longest:
        raise FormatError(f"{path}: max_token_length is {longest}, expected {found_longest}")
    return entries


def _to_pieces(entries: list[tuple[str, float]], path: Path) -> list[Piece]:
    if [text for text, _ in entries[BOS_ID : EOS_ID + 1]] != list(SPECIAL):
        found = ", ".join(repr(text) for text, _ in entries[:3])
        raise FormatError(f"{path} starts with the tokens {found or 'none'}; expected <unk>, <s> and </s>")
    pieces = [Piece(entries[0][0], entries[0][1], PieceType.UNKNOWN)]
    pieces += [Piece(SPECIAL[text], score, PieceType.CONTROL) for text, score in entries[BOS_ID:FIRST_BYTE_ID]]
    rest = entries[FIRST_BYTE_ID:]
    bytes_follow = all(text in _byte_texts(byte) for byte, (text, _) in enumerate(rest[:256])) and len(rest) >= 256
    for place, (text, score) in enumerate(rest):
        if bytes_follow and place < 256:
            pieces.append(Piece(f"<0x{place:02X}>", score, PieceType.BYTE))
        else:
            pieces.append(Piece(text.replace(" ", SPACE), score, PieceType.NORMAL))
    return pieces


def _byte_texts(byte: int) -> tuple[str, str]:
    """The two texts of a byte piece: its name or, in llama2.c's first months, the character of that number."""
    return f"<0x{byte:02X}>", chr(byte)


def _to_llama2c(id: int, piece: Piece) -> bytes:
    if id in (BOS_ID, EOS_ID):
        return list(SPECIAL)[id - BOS_ID].encode()
    return piece.text.replace(SPACE, " ").encode()
