"""Writes a SentencePiece `.model` file from pieces, for formats that hold only pieces: GGUF and tokenizer.bin.

This is the counterpart of `model_proto.parse_model`. It writes the fields that decide ids and text, and none of the
trainer's records. `Tokenizer.from_bytes` checks whether the result is a usable tokenizer.

The field numbers are those of `sentencepiece_model.proto` in google/sentencepiece.
"""

import struct
from collections.abc import Iterable

from tinyllm.tokenizer.model_proto import SPACING_FIELD, WITHOUT_BOS_FIELD, Piece, PieceType, Spacing

_BPE = 2  # TrainerSpec.ModelType
_USUAL_UNK_SURFACE = " \u2047 "
_SPECIAL_FIELDS = {"unk": 40, "bos": 41, "eos": 42, "pad": 43}
_SPECIAL_PIECE_FIELDS = {"unk": 45, "bos": 46, "eos": 47, "pad": 48}


def write_model_proto(
    pieces: list[Piece],
    *,
    unk_id: int,
    bos_id: int | None,
    eos_id: int | None,
    pad_id: int | None = None,
    add_dummy_prefix: bool = True,
    remove_extra_whitespaces: bool = False,
    unk_surface: str = _USUAL_UNK_SURFACE,
    spacing: Spacing = Spacing.WHOLE,
    adds_bos: bool = True,
) -> bytes:
    """The bytes of a BPE `.model` whose ids are the indices in `pieces`; a special id of None names no token.

    Raises ValueError if a special id is out of range.
    """
    ids = {"unk": unk_id, "bos": bos_id, "eos": eos_id, "pad": pad_id}
    for name, id in ids.items():
        if id is not None and not 0 <= id < len(pieces):
            raise ValueError(f"{name}_id is {id}; the vocabulary has the ids 0 to {len(pieces) - 1}")
    has_bytes = any(piece.type == PieceType.BYTE for piece in pieces)
    trainer = [
        _integer(3, _BPE),
        _integer(4, len(pieces)),
        _integer(35, has_bytes),
        *([] if unk_surface == _USUAL_UNK_SURFACE else [_text(44, unk_surface)]),
        *(_integer(_SPECIAL_FIELDS[name], -1 if id is None else id) for name, id in ids.items()),
        # SentencePiece identifies BOS, EOS and padding by their texts and ignores the ids above.
        *(_text(_SPECIAL_PIECE_FIELDS[name], pieces[id].text) for name, id in ids.items() if id is not None),
    ]
    normalizer = [
        _text(1, "identity"),
        _integer(3, add_dummy_prefix),
        _integer(4, remove_extra_whitespaces),
        _integer(5, True),
    ]
    ours = [*([_integer(SPACING_FIELD, spacing)] if spacing else []), *([] if adds_bos else [_bos_mark(adds_bos)])]
    listed = [_message(1, _piece(piece)) for piece in pieces]
    return b"".join([*listed, _message(2, trainer), _message(3, normalizer), *ours])


def marked_bos(model_proto: bytes, adds_bos: bool) -> bytes:
    """`model_proto` with a field that says whether prompts begin with BOS; the last such field applies."""
    return model_proto + _bos_mark(adds_bos)


def with_reserved(model_proto: bytes, vocab_size: int, texts: Iterable[str]) -> bytes:
    """`model_proto` with a control piece appended for each of `texts`, `vocab_size` pieces in all."""
    pieces = [_message(1, _piece(Piece(text, 0.0, PieceType.CONTROL))) for text in texts]
    return b"".join([model_proto, *pieces, _message(2, [_integer(4, vocab_size)])])


def without_prefix(model_proto: bytes) -> bytes:
    """`model_proto` with `add_dummy_prefix` off, so that encoding adds no space before the text."""
    # Protobuf merges a repeated message field by field; the later value applies.
    return model_proto + _message(3, [_integer(3, False)])


def _bos_mark(adds_bos: bool) -> bytes:
    return _integer(WITHOUT_BOS_FIELD, not adds_bos)


def _piece(piece: Piece) -> list[bytes]:
    # Protobuf's fixed 32-bit wire type is 5.
    fields = [_text(1, piece.text), bytes([2 << 3 | 5]) + struct.pack("<f", piece.score)]
    return fields if piece.type == PieceType.NORMAL else [*fields, _integer(3, piece.type)]


def _integer(number: int, value: int) -> bytes:
    # Negative numbers are stored as their 64-bit two's complement.
    return _varint(number << 3) + _varint(value % 2**64)


def _text(number: int, value: str) -> bytes:
    return _message(number, [value.encode()])


def _message(number: int, parts: Iterable[bytes]) -> bytes:
    content = b"".join(parts)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Encodes an integer with seven bits a byte, low bits first; the high bit marks a following byte."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
