"""Converts a SentencePiece BPE tokenizer to and from GGUF's metadata, where `tokenizer.ggml.model` is `llama`.

Pieces, scores and types are the same lists as in a `.model` file, in the same order, so ids are the same. llama.cpp
ignores `remove_extra_whitespaces`, so it gives other ids for texts with runs of spaces or spaces at an end. The key is
still written, and read here. User-defined pieces are cut out of a text first, and a space precedes each section between
them. Unused pieces, which llama.cpp's converter makes for rows without a token, are read as control pieces; neither
kind decodes to text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.gguf_file import Value, ValueType
from tinyllm.tokenizer.byte_level import ByteLevelTokenizer
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType, Spacing
from tinyllm.tokenizer.proto_writer import write_model_proto

PIECE_LIMIT = 512
"""Characters of a piece whose splits are checked."""
_PREFIX = "tokenizer.ggml."
_NO_TOKEN = 2**32 - 1
"""Converters write this for Hugging Face's -1: no such token."""
_END_KEYS = ("eos", "eot", "eom")
"""The tokens at which llama.cpp ends a text: end of sequence, of a turn, of a message."""
_USUAL_IDS = {"bos": 1, "eos": 2, "unknown": 0}
"""llama.cpp's defaults for a SentencePiece tokenizer without these keys."""


def tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, tuple[ValueType, object]]:
    """The metadata of `tokenizer`, with the settings under which llama.cpp gives its ids.

    Raises InputError for a tokenizer without byte fallback: llama.cpp encodes unknown text as bytes.
    """
    if isinstance(tokenizer, ByteLevelTokenizer):
        raise InputError(
            f"{tokenizer.name} is a byte-level BPE tokenizer, which tinyllm does not write to GGUF; use safetensors"
        )
    if not tokenizer.proto.byte_fallback:
        raise InputError(f"{tokenizer.name} has no byte pieces, which llama.cpp needs for unknown text")
    ends = _end_tokens(tokenizer)
    special = {
        "bos_token_id": tokenizer.bos_id,
        **{f"{name}_token_id": id for name, id in zip(_END_KEYS, ends, strict=False)},
        "unknown_token_id": tokenizer.unk_id,
        "padding_token_id": tokenizer.pad_id,
    }
    values: dict[str, tuple[ValueType, object]] = {
        "model": (ValueType.STRING, "llama"),
        "pre": (ValueType.STRING, "default"),
        "tokens": (ValueType.STRING, [piece.text for piece in tokenizer.pieces]),
        "scores": (ValueType.FLOAT32, [piece.score for piece in tokenizer.pieces]),
        "token_type": (ValueType.INT32, [int(piece.type) for piece in tokenizer.pieces]),
        **{
            name: (ValueType.UINT32, _NO_TOKEN if id is None else id)
            for name, id in special.items()
            if id is not None or name in ("bos_token_id", "eos_token_id")
        },
        "add_bos_token": (ValueType.BOOL, tokenizer.begins_with_bos),
        "add_eos_token": (ValueType.BOOL, False),
        "add_space_prefix": (ValueType.BOOL, tokenizer.proto.add_dummy_prefix),
        "remove_extra_whitespaces": (ValueType.BOOL, tokenizer.proto.remove_extra_whitespaces),
    }
    return {_PREFIX + name: value for name, value in values.items()}


def _end_tokens(tokenizer: Tokenizer) -> list[int | None]:
    """The end tokens with the tokenizer's EOS first; [None] if there are none."""
    return sorted(tokenizer.end_ids, key=lambda id: (id != tokenizer.eos_id, id)) or [None]


def read_tokenizer(metadata: Mapping[str, Value], path: Path) -> Tokenizer | None:
    """The tokenizer in a GGUF file's metadata; None if the metadata says that there is none.

    Raises FormatError if it is damaged or not SentencePiece BPE.
    """
    model = metadata.get(f"{_PREFIX}model", "none")
    if model in ("none", "no_vocab"):
        return None
    if model != "llama":
        raise FormatError(
            f"{path}: {_PREFIX}model is {model!r}, expected 'llama'; tinyllm reads SentencePiece BPE tokenizers"
        )
    pieces = _read_pieces(metadata, path)
    padding_id = _token_id(metadata, "padding", pieces, path)
    eos_id = _token_id(metadata, "eos", pieces, path)
    has_user_defined = any(piece.type == PieceType.USER_DEFINED for piece in pieces)
    proto = write_model_proto(
        pieces,
        unk_id=next((id for id, piece in enumerate(pieces) if piece.type == PieceType.UNKNOWN), 0),
        bos_id=_control_id(metadata, "bos", pieces, path),
        # Any token may end a text; SentencePiece accepts only a control piece as EOS.
        eos_id=eos_id if eos_id is not None and pieces[eos_id].type == PieceType.CONTROL else None,
        # Files without a padding token often name <unk> here; SentencePiece accepts only control pieces.
        pad_id=padding_id if padding_id and pieces[padding_id].type == PieceType.CONTROL else None,
        add_dummy_prefix=_flag(metadata, "add_space_prefix", True, path),
        remove_extra_whitespaces=_flag(metadata, "remove_extra_whitespaces", False, path),
        spacing=Spacing.SECTIONS if has_user_defined else Spacing.WHOLE,
        adds_bos=_flag(metadata, "add_bos_token", True, path),
    )
    ends = (_token_id(metadata, name, pieces, path) for name in _END_KEYS)
    tokenizer = Tokenizer.from_bytes(proto, f"the tokenizer in {path}")
    return tokenizer.with_rules(end_ids=(id for id in ends if id is not None))


def _read_pieces(metadata: Mapping[str, Value], path: Path) -> list[Piece]:
    texts = metadata.get(f"{_PREFIX}tokens")
    if not isinstance(texts, list) or not texts:
        raise FormatError(f"{path}: {_PREFIX}tokens is not an array of strings with one for each token")
    scores = _numbers(metadata, "scores", np.dtype("<f4"), len(texts), path)
    types = _numbers(metadata, "token_type", np.dtype("<i4"), len(texts), path)
    for id, type in enumerate(types):
        if type not in PieceType.__members__.values():
            raise FormatError(f"{path}: {_PREFIX}token_type of id {id} is {type}, expected 1 to 6")
    pieces = [Piece(text, score, PieceType(type)) for text, score, type in zip(texts, scores, types, strict=True)]
    unknown_id = _token_id(metadata, "unknown", pieces, path)
    if unknown_id is not None and PieceType.UNKNOWN not in types:
        # Files converted from Hugging Face directories may list <unk> as a control token.
        pieces[unknown_id] = pieces[unknown_id]._replace(type=PieceType.UNKNOWN)
    return _without_unused(pieces, path)


def _without_unused(pieces: list[Piece], path: Path) -> list[Piece]:
    """`pieces` with unused ones as control pieces. Raises FormatError if llama.cpp could find one in a text."""
    texts = {piece.text for piece in pieces}
    for id, piece in enumerate(pieces):
        if piece.type != PieceType.UNUSED:
            continue
        cuts = ((piece.text[:cut], piece.text[cut:]) for cut in range(1, min(len(piece.text), PIECE_LIMIT)))
        if len(piece.text) == 1 or any(left in texts and right in texts for left, right in cuts):
            raise FormatError(
                f"{path}: the token {piece.text!r:.60} (id {id}) is unused, but made of other tokens, which tinyllm "
                "does not read. Convert the model again with its type as normal (1) or control (3)"
            )
        pieces[id] = piece._replace(type=PieceType.CONTROL)
    return pieces


def _numbers(
    metadata: Mapping[str, Value], name: str, dtype: "np.dtype[np.generic]", length: int, path: Path
) -> list[Any]:
    values = metadata.get(_PREFIX + name)
    if not isinstance(values, np.ndarray) or values.dtype != dtype or len(values) != length:
        raise FormatError(f"{path}: {_PREFIX}{name} is not an array of {length} {dtype.name}, one for each token")
    numbers: list[Any] = values.tolist()
    return numbers


def _token_id(metadata: Mapping[str, Value], name: str, pieces: list[Piece], path: Path) -> int | None:
    value = metadata.get(f"{_PREFIX}{name}_token_id")
    if value is None and name in _USUAL_IDS:
        usual = _USUAL_IDS[name]
        expected = PieceType.UNKNOWN if name == "unknown" else PieceType.CONTROL
        return usual if usual < len(pieces) and pieces[usual].type == expected else None
    if value is None or value == _NO_TOKEN:
        return None
    if type(value) is not int or not 0 <= value < len(pieces):
        raise FormatError(f"{path}: {_PREFIX}{name}_token_id is {value!r}, expected an id from 0 to {len(pieces) - 1}")
    return value


def _control_id(metadata: Mapping[str, Value], name: str, pieces: list[Piece], path: Path) -> int | None:
    id = _token_id(metadata, name, pieces, path)
    if id is not None and pieces[id].type != PieceType.CONTROL:
        raise FormatError(
            f"{path}: {_PREFIX}{name}_token_id is {id}, a token of type {pieces[id].type.name}, expected CONTROL"
        )
    return id


def _flag(metadata: Mapping[str, Value], name: str, default: bool, path: Path) -> bool:
    value = metadata.get(_PREFIX + name, default)
    if not isinstance(value, bool):
        raise FormatError(f"{path}: {_PREFIX}{name} is {value!r}, expected true or false")
    return value
