"""llama2.c's `tokenizer.bin`: each token's text and score, and nothing else.

The file has neither types nor settings, so what they were is concluded from the texts as llama2.c writes them: BOS
and EOS stand between line feeds, bytes as `<0x0A>`, spaces as spaces. A vocabulary that has no run of two spaces was
trained on texts from which SentencePiece had removed such runs, so it removes them here too; Llama 2's has some.

The layout is that of karpathy/llama2.c, `tokenizer.py` and `run.c`.
"""

import struct
from pathlib import Path

from tinyllm.errors import FormatError
from tinyllm.tokenizer.codec import SPACE, Tokenizer
from tinyllm.tokenizer.model_proto import MODEL_LIMIT_BYTES, Piece, PieceType
from tinyllm.tokenizer.proto_writer import write_model_proto

SPECIAL = {"\n<s>\n": "<s>", "\n</s>\n": "</s>"}
"""llama2.c's text of BOS and EOS, and SentencePiece's."""
UNKNOWN_ID, BOS_ID, EOS_ID = 0, 1, 2
"""Built into `run.c`, so that no file says them."""
FIRST_BYTE_ID = 3

_LONGEST = struct.Struct("<I")
_ENTRY = struct.Struct("<fI")


def tokenizer_to_bin(tokenizer: Tokenizer) -> bytes:
    """The content of the `tokenizer.bin` for `tokenizer`.

    Raises FormatError if its BOS and EOS are not 1 and 2, or its bytes not 3 to 258: llama2.c has them built in.
    """
    found = (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id)
    if found != (UNKNOWN_ID, BOS_ID, EOS_ID):
        raise FormatError(f"{tokenizer.name} has unk, bos, eos at {found}; llama2.c has them at 0, 1, 2 built in")
    first_byte = next((id for id, piece in enumerate(tokenizer.pieces) if piece.type == PieceType.BYTE), FIRST_BYTE_ID)
    if first_byte != FIRST_BYTE_ID:
        raise FormatError(
            f"{tokenizer.name} has its bytes from id {first_byte} on; llama2.c has them from 3 on built in"
        )
    entries = [(_to_llama2c(id, piece), piece.score) for id, piece in enumerate(tokenizer.pieces)]
    longest = max(len(text) for text, _ in entries)
    return _LONGEST.pack(longest) + b"".join(_ENTRY.pack(score, len(text)) + text for text, score in entries)


def read_tokenizer_bin(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.bin`. Raises FormatError where it is damaged."""
    size = path.stat().st_size
    if size > MODEL_LIMIT_BYTES:
        raise FormatError(f"{path} has {size} bytes; expected at most {MODEL_LIMIT_BYTES} of a tokenizer")
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
    """Text and score of each token, up to the end of the file."""
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
    """How a byte piece may be written: by its name, or, in llama2.c's first months, as the character of that number."""
    return f"<0x{byte:02X}>", chr(byte)


def _to_llama2c(id: int, piece: Piece) -> bytes:
    if id in (BOS_ID, EOS_ID):
        return list(SPECIAL)[id - BOS_ID].encode()
    return piece.text.replace(SPACE, " ").encode()
