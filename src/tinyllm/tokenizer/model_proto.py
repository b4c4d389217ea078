"""Parses SentencePiece's `.model` file into pieces and the settings that decide how text becomes ids.

This is a small reader of the protobuf wire format, with two purposes. SentencePiece's C++ may abort the process on a
damaged file, so the file is checked here first. The exporters need pieces, scores and types, which SentencePiece's
Python module returns only one by one. This module neither writes files nor encodes text.

The field numbers are those of `sentencepiece_model.proto` in google/sentencepiece.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from tinyllm.errors import FormatError

MODEL_LIMIT_BYTES = 64 * 2**20
SPACE = "\u2581"
"""SentencePiece's character for a space: ▁."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
SPACING_FIELD, WITHOUT_BOS_FIELD = 200, 201
"""Two fields of tinyllm, in the range reserved for extensions; SentencePiece preserves and ignores them."""
_BPE = 2  # TrainerSpec.ModelType
_MODEL_TYPES = {1: "unigram", 3: "word", 4: "char"}


class PieceType(IntEnum):
    """The role of a piece, with SentencePiece's numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Spacing(IntEnum):
    """The rule for the space that encoding adds before text, if the model adds one (`add_dummy_prefix`)."""

    WHOLE = 0
    """Before the whole text, as in SentencePiece, which finds the user-defined pieces itself."""
    SECTIONS = 1
    """Before each section between user-defined pieces, as in llama.cpp and Hugging Face's `Prepend` normalizer."""
    FIRST = 2
    """Before the text, unless it begins with a space or a user-defined piece: Hugging Face's Metaspace `first`."""
    ALWAYS = 3
    """Before each section that does not begin with a space: Hugging Face's Metaspace `always`."""


_TYPES = {int(type): type for type in PieceType}
_SCORE = struct.Struct("<f")


class Piece(NamedTuple):
    """One entry of the vocabulary; its id is its index in the list."""

    text: str
    score: float
    """Float32. In a BPE model, merges with higher scores happen first."""
    type: PieceType


@dataclass(frozen=True)
class ModelProto:
    """The content of a `.model` file that decides ids or text."""

    pieces: list[Piece]
    byte_fallback: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    unk_surface: str
    spacing: Spacing = Spacing.WHOLE
    adds_bos: bool = True
    """Whether a prompt begins with BOS, if the tokenizer has one."""


class _DamagedError(Exception):
    """The fault in the bytes; `parse_model` adds the file's name."""


def parse_model(content: bytes, name: str) -> ModelProto:
    """Parses a `.model` file's bytes; `name` is for messages.

    Raises FormatError if they are damaged, or if the model is not BPE, normalizes text, or has unused pieces.
    """
    if len(content) > MODEL_LIMIT_BYTES:
        raise FormatError(f"{name} has {len(content)} bytes, more than the {MODEL_LIMIT_BYTES} of any real tokenizer")
    try:
        pieces, position = _read_usual_pieces(content)
        fields = _read_message(content[position:])
        pieces += [_read_piece(index, value) for index, value in enumerate(fields.get(1, []), start=len(pieces))]
        trainer, normalizer, denormalizer = (_read_submessage(fields, number) for number in (2, 3, 5))
        proto = ModelProto(
            pieces=pieces,
            byte_fallback=bool(_last_int(trainer, 35, 0)),
            add_dummy_prefix=bool(_last_int(normalizer, 3, 1)),
            remove_extra_whitespaces=bool(_last_int(normalizer, 4, 1)),
            unk_surface=_last_bytes(trainer, 44, " \u2047 ".encode()).decode(),
            spacing=_spacing(_last_int(fields, SPACING_FIELD, 0)),
            adds_bos=not _last_int(fields, WITHOUT_BOS_FIELD, 0),
        )
        _check_pieces(proto)
    except (_DamagedError, UnicodeDecodeError) as error:
        raise FormatError(f"{name} is not a whole SentencePiece model: {error}") from None
    _check_kind(name, trainer, normalizer, denormalizer)
    _check_types(name, pieces)
    return proto


_Fields = dict[int, list[int | bytes]]


def _read_message(content: bytes) -> _Fields:
    """The fields of one protobuf message: number -> values in order, integers or raw bytes."""
    fields: _Fields = {}
    for number, value in _iterate_fields(content):
        fields.setdefault(number, []).append(value)
    return fields


def _iterate_fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    position, end = 0, len(content)
    while position < end:
        key, position = _read_varint(content, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise _DamagedError(f"field number 0 before byte {position}")
        if wire_type == _VARINT:
            value, position = _read_varint(content, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, position = _read_varint(content, position)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            raise _DamagedError(f"wire type {wire_type} before byte {position}")
        if size > end - position:
            raise _DamagedError(f"field {number} needs {size} bytes, but {end - position} are left")
        yield number, content[position : position + size]
        position += size


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """The integer at `position`, 7 bits a byte, low bits first, and the position after it."""
    value = shift = 0
    while True:
        if position >= len(content):
            raise _DamagedError("it ends inside a number")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise _DamagedError(f"a number of more than 64 bits before byte {position}")


def _read_submessage(fields: _Fields, number: int) -> _Fields:
    # Protobuf merges a repeated message field by field, which equals parsing the joined bytes.
    return _read_message(b"".join(_as_bytes(value, number) for value in fields.get(number, [])))


def _read_usual_pieces(content: bytes) -> tuple[list[Piece], int]:
    """The pieces at the start of `content` in SentencePiece's usual layout, and the position after them.

    The layout is a short text, the score, and the type unless it is normal. This fast path matters because every start
    reads the vocabulary: 32,000 pieces take 0.05 s, and 0.25 s field by field.
    """
    pieces: list[Piece] = []
    position, last, unpack = 0, len(content) - 4, _SCORE.unpack_from
    while position < last and content[position] == 0x0A and content[position + 2] == 0x0A:
        size, text_size = content[position + 1], content[position + 3]
        start, end = position + 4, position + 2 + size
        score, left = start + text_size, size - 2 - text_size
        if size > 0x7F or end > len(content) or left not in (5, 7) or content[score] != 0x15:
            break
        type: PieceType | None = PieceType.NORMAL
        if left == 7:
            type = _TYPES.get(content[score + 6]) if content[score + 5] == 0x18 else None
        if type is None:
            break
        pieces.append(Piece(content[start:score].decode(), unpack(content, score + 1)[0], type))
        position = end
    return pieces, position


def _read_piece(index: int, content: int | bytes) -> Piece:
    content = _as_bytes(content, 1)
    fields = _read_message(content)
    text = _last_bytes(fields, 1, b"").decode()
    raw_score = _last_bytes(fields, 2, bytes(4))
    if len(raw_score) != 4:
        raise _DamagedError(f"the score of piece {index} has {len(raw_score)} bytes instead of 4")
    number = _last_int(fields, 3, PieceType.NORMAL)
    if number not in PieceType.__members__.values():
        raise _DamagedError(f"piece {index} has the unknown type {number}")
    return Piece(text, _SCORE.unpack(raw_score)[0], PieceType(number))


def _as_bytes(value: int | bytes, number: int) -> bytes:
    if isinstance(value, int):
        raise _DamagedError(f"field {number} is a number instead of bytes")
    return value


def _last_bytes(fields: _Fields, number: int, default: bytes) -> bytes:
    return _as_bytes(fields.get(number, [default])[-1], number)


def _last_int(fields: _Fields, number: int, default: int) -> int:
    value = fields.get(number, [default])[-1]
    if not isinstance(value, int):
        raise _DamagedError(f"field {number} has bytes instead of a number")
    return value


def _check_pieces(proto: ModelProto) -> None:
    if not proto.pieces:
        raise _DamagedError("it has no pieces")
    first_with: dict[str, int] = {}
    for index, piece in enumerate(proto.pieces):
        if not piece.text:
            raise _DamagedError(f"piece {index} is empty")
        if not math.isfinite(piece.score):
            raise _DamagedError(f"piece {index} has the score {piece.score}")
        if first_with.setdefault(piece.text, index) != index:
            raise _DamagedError(f"pieces {first_with[piece.text]} and {index} are both {piece.text!r}")
    counts = Counter(piece.type for piece in proto.pieces)
    num_unknown = counts[PieceType.UNKNOWN]
    if num_unknown != 1:
        raise _DamagedError(f"it has {num_unknown} pieces for unknown text instead of 1")
    num_bytes = counts[PieceType.BYTE]
    if num_bytes != (256 if proto.byte_fallback else 0):
        raise _DamagedError(f"it has {num_bytes} byte pieces with byte_fallback {proto.byte_fallback}")
    if proto.byte_fallback and any(
        first_with.get(text := f"<0x{byte:02X}>") is None or proto.pieces[first_with[text]].type != PieceType.BYTE
        for byte in range(256)
    ):
        raise _DamagedError("its byte pieces are not <0x00> to <0xFF>")


def _check_kind(name: str, trainer: _Fields, normalizer: _Fields, denormalizer: _Fields) -> None:
    """Refuses a model whose ids depend on more than the pieces and the two whitespace settings."""
    try:
        model_type = _last_int(trainer, 3, 1)
        found = [
            (model_type != _BPE, f"a {_MODEL_TYPES.get(model_type, model_type)} model, not BPE"),
            (any(_last_bytes(each, 2, b"") for each in (normalizer, denormalizer)), "with text normalization"),
            (not _last_int(normalizer, 5, 1), "with escape_whitespaces off"),
            (bool(_last_int(trainer, 24, 0)), "with whitespace as a suffix"),
        ]
    except _DamagedError as error:
        raise FormatError(f"{name} is not a whole SentencePiece model: {error}") from None
    for refused, reason in found:
        if refused:
            raise FormatError(f"{name} is {reason}; tinyllm reads SentencePiece BPE models with the identity rule")


def _check_types(name: str, pieces: list[Piece]) -> None:
    for index, piece in enumerate(pieces):
        if piece.type == PieceType.UNUSED:
            raise FormatError(
                f"{name} has the unused piece {piece.text!r} (id {index}), which tinyllm does not handle; "
                "make it a normal or a control piece"
            )


def _spacing(number: int) -> Spacing:
    if number not in Spacing.__members__.values():
        raise _DamagedError(f"field {SPACING_FIELD} is {number}")
    return Spacing(number)
