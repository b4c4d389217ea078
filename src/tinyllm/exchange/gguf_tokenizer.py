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
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType, Spacing
from tinyllm.tokenizer.proto_writer import write_model_proto

PIECE_LIMIT = 512
"""Characters of a piece whose splits are checked."""
PREFIX = "tokenizer.ggml."
_NO_TOKEN = 2**32 - 1
"""Converters write this for Hugging Face's -1: no such token."""
END_KEYS = ("eos", "eot", "eom")
"""The tokens at which llama.cpp ends a text: end of sequence, of a turn, of a message."""
_USUAL_IDS = {"bos": 1, "eos": 2, "unknown": 0}
"""llama.cpp's defaults for a SentencePiece tokenizer without these keys."""


def tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, tuple[ValueType, object]]:
    """The metadata of `tokenizer`, with the settings under which llama.cpp gives its ids.

    Raises InputError for a tokenizer without byte fallback: llama.cpp encodes unknown text as bytes.
    """
    if not tokenizer.proto.byte_fallback:
        raise InputError(f"{tokenizer.name} has no byte pieces, which llama.cpp needs for unknown text")
    values: dict[str, tuple[ValueType, object]] = {
        "model": (ValueType.STRING, "llama"),
        "pre": (ValueType.STRING, "default"),
        "tokens": (ValueType.STRING, [piece.text for piece in tokenizer.pieces]),
        "scores": (ValueType.FLOAT32, [piece.score for piece in tokenizer.pieces]),
        "token_type": (ValueType.INT32, [int(piece.type) for piece in tokenizer.pieces]),
        **end_metadata(tokenizer),
        "unknown_token_id": (ValueType.UINT32, tokenizer.unk_id),
        "add_bos_token": (ValueType.BOOL, tokenizer.begins_with_bos),
        "add_eos_token": (ValueType.BOOL, False),
        "add_space_prefix": (ValueType.BOOL, tokenizer.proto.add_dummy_prefix),
        "remove_extra_whitespaces": (ValueType.BOOL, tokenizer.proto.remove_extra_whitespaces),
    }
    return {PREFIX + name: value for name, value in values.items()}


def end_metadata(tokenizer: Tokenizer) -> dict[str, tuple[ValueType, object]]:
    """The ids of BOS, of the tokens that end a text, and of the padding token."""
    special = {
        "bos_token_id": tokenizer.bos_id,
        **{f"{name}_token_id": id for name, id in zip(END_KEYS, _end_tokens(tokenizer), strict=False)},
        "padding_token_id": tokenizer.pad_id,
    }
    return {
        name: (ValueType.UINT32, _NO_TOKEN if id is None else id)
        for name, id in special.items()
        if id is not None or name in ("bos_token_id", "eos_token_id")
    }


def _end_tokens(tokenizer: Tokenizer) -> list[int | None]:
    """The end tokens with the tokenizer's EOS first; [None] if there are none."""
    return sorted(tokenizer.end_ids, key=lambda id: (id != tokenizer.eos_id, id)) or [None]


def read_tokenizer(metadata: Mapping[str, Value], path: Path) -> Tokenizer | None:
    """The tokenizer in a GGUF file's metadata; None if the metadata says that there is none.

    Raises FormatError if it is damaged or not SentencePiece BPE.
    """
    model = metadata.get(f"{PREFIX}model", "none")
    if model in ("none", "no_vocab"):
        return None
    if model != "llama":
        raise FormatError(f"{path}: {PREFIX}model is {model!r}, expected 'llama' or 'gpt2'")
    pieces = _read_pieces(metadata, path)
    padding_id = read_token_id(metadata, "padding", pieces, path)
    eos_id = read_token_id(metadata, "eos", pieces, path)
    has_user_defined = any(piece.type == PieceType.USER_DEFINED for piece in pieces)
    proto = write_model_proto(
        pieces,
        unk_id=next((id for id, piece in enumerate(pieces) if piece.type == PieceType.UNKNOWN), 0),
        bos_id=_control_id(metadata, "bos", pieces, path),
        # Any token may end a text; SentencePiece accepts only a control piece as EOS.
        eos_id=eos_id if eos_id is not None and pieces[eos_id].type == PieceType.CONTROL else None,
        # Files without a padding token often name <unk> here; SentencePiece accepts only control pieces.
        pad_id=padding_id if padding_id and pieces[padding_id].type == PieceType.CONTROL else None,
        add_dummy_prefix=read_flag(metadata, "add_space_prefix", True, path),
        remove_extra_whitespaces=read_flag(metadata, "remove_extra_whitespaces", False, path),
        spacing=Spacing.SECTIONS if has_user_defined else Spacing.WHOLE,
        adds_bos=read_flag(metadata, "add_bos_token", True, path),
    )
    ends = (read_token_id(metadata, name, pieces, path) for name in END_KEYS)
    tokenizer = Tokenizer.from_bytes(proto, f"the tokenizer in {path}")
    return tokenizer.with_rules(end_ids=(id for id in ends if id is not None))


def _read_pieces(metadata: Mapping[str, Value], path: Path) -> list[Piece]:
    texts = metadata.get(f"{PREFIX}tokens")
    if not isinstance(texts, list) or not texts:
        raise FormatError(f"{path}: {PREFIX}tokens is not an array of strings with one for each token")
    scores = read_numbers(metadata, "scores", "<f4", len(texts), path)
    types = read_numbers(metadata, "token_type", "<i4", len(texts), path)
    for id, type in enumerate(types):
        if type not in PieceType.__members__.values():
            raise FormatError(f"{path}: {PREFIX}token_type of id {id} is {type}, expected 1 to 6")
    pieces = [Piece(text, score, PieceType(type)) for text, score, type in zip(texts, scores, types, strict=True)]
    unknown_id = read_token_id(metadata, "unknown", pieces, path)
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


def read_numbers(metadata: Mapping[str, Value], name: str, dtype: str, length: int, path: Path) -> list[Any]:
    """An array with one number for each token, whose type is NumPy's `dtype`."""
    values = metadata.get(PREFIX + name)
    if not isinstance(values, np.ndarray) or values.dtype != np.dtype(dtype) or len(values) != length:
        raise FormatError(
            f"{path}: {PREFIX}{name} is not an array of {length} {np.dtype(dtype).name}, one for each token"
        )
    numbers: list[Any] = values.tolist()
    return numbers


def read_token_id(metadata: Mapping[str, Value], name: str, pieces: list[Piece], path: Path) -> int | None:
    """The id of a special token; None if the tokenizer has none. Raises FormatError if it is out of range."""
    value = metadata.get(f"{PREFIX}{name}_token_id")
    if value is None and name in _USUAL_IDS:
        usual = _USUAL_IDS[name]
        expected = PieceType.UNKNOWN if name == "unknown" else PieceType.CONTROL
        return usual if usual < len(pieces) and pieces[usual].type == expected else None
    if value is None or value == _NO_TOKEN:
        return None
    if type(value) is not int or not 0 <= value < len(pieces):
        raise FormatError(f"{path}: {PREFIX}{name}_token_id is {value!r}, expected an id from 0 to {len(pieces) - 1}")
    return value


def _control_id(metadata: Mapping[str, Value], name: str, pieces: list[Piece], path: Path) -> int | None:
    id = read_token_id(metadata, name, pieces, path)
    if id is not None and pieces[id].type != PieceType.CONTROL:
        raise FormatError(
            f"{path}: {PREFIX}{name}_token_id is {id}, a token of type {pieces[id].type.name}, expected CONTROL"
        )
    return id


def read_flag(metadata: Mapping[str, Value], name: str, default: bool, path: Path) -> bool:
    """A setting that is true or false."""
    value = metadata.get(PREFIX + name, default)
    if not isinstance(value, bool):
        raise FormatError(f"{path}: {PREFIX}{name} is {value!r}, expected true or false")
    return value
