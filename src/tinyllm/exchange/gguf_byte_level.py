"""Converts a byte-level BPE tokenizer to and from GGUF's metadata, where `tokenizer.ggml.model` is `gpt2`.

A file has the tokens, their types and the merges. It has no rule that splits a text into words, but the name of one of
llama.cpp's: `tokenizer.ggml.pre`. Three of these names are known here. GGUF does not store whether an added token
includes the spaces around it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.gguf_file import Value, ValueType
from tinyllm.exchange.gguf_tokenizer import END_KEYS, PREFIX, end_metadata, read_flag, read_numbers, read_token_id
from tinyllm.tokenizer.byte_level import CONFIG_NAME, JSON_NAME, ByteLevelTokenizer, added_token, without_offsets
from tinyllm.tokenizer.model_proto import Piece, PieceType

MODEL = "gpt2"
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_WORDS = {"type": "Split", "pattern": {"Regex": _LLAMA3_WORDS}, "behavior": "Isolated", "invert": False}
SPLITTERS: dict[str, tuple[dict[str, Any], bool]] = {
    "gpt-2": (_BYTES, False),
    "smollm": ({"type": "Sequence", "pretokenizers": [_DIGITS, _BYTES]}, False),
    "llama-bpe": ({"type": "Sequence", "pretokenizers": [_WORDS, _BYTES | {"use_regex": False}]}, True),
}
"""llama.cpp's name -> the pre-tokenizer, and whether words of the vocabulary are found without merges."""
_BEGINS_WITH_BOS = ("llama-bpe",)
"""Names for which llama.cpp begins a prompt with BOS, unless the file says otherwise."""


def byte_level_metadata(tokenizer: ByteLevelTokenizer) -> dict[str, tuple[ValueType, object]]:
    """The metadata of `tokenizer`. Raises InputError if llama.cpp has no name for its rule of splitting."""
    content = json.loads(tokenizer.files[JSON_NAME])
    merges = [each if isinstance(each, str) else " ".join(each) for each in content["model"].get("merges", [])]
    values: dict[str, tuple[ValueType, object]] = {
        "model": (ValueType.STRING, MODEL),
        "pre": (ValueType.STRING, _name_of(content, tokenizer.name)),
        "tokens": (ValueType.STRING, [piece.text for piece in tokenizer.pieces]),
        "token_type": (ValueType.INT32, [int(piece.type) for piece in tokenizer.pieces]),
        "merges": (ValueType.STRING, merges),
        **end_metadata(tokenizer),
        "add_bos_token": (ValueType.BOOL, tokenizer.begins_with_bos),
        "add_eos_token": (ValueType.BOOL, False),
        "add_space_prefix": (ValueType.BOOL, False),
    }
    return {PREFIX + name: value for name, value in values.items()}


def read_byte_level(metadata: Mapping[str, Value], path: Path) -> ByteLevelTokenizer:
    """The tokenizer in a GGUF file's metadata.

    Raises FormatError if it is damaged, or if its rule of splitting is not one of `SPLITTERS`.
    """
    name = metadata.get(f"{PREFIX}pre")
    if not isinstance(name, str) or name not in SPLITTERS:
        raise FormatError(f"{path}: {PREFIX}pre is {name!r:.60}; tinyllm reads {', '.join(SPLITTERS)}")
    pieces = _read_pieces(metadata, path)
    merges = metadata.get(f"{PREFIX}merges")
    if not isinstance(merges, list):
        raise FormatError(f"{path}: {PREFIX}merges is not an array of strings")
    ids = {
        kind: read_token_id(metadata, key, pieces, path) if f"{PREFIX}{key}_token_id" in metadata else None
        for kind, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items()
    }
    adds_bos = read_flag(metadata, "add_bos_token", name in _BEGINS_WITH_BOS, path) and ids["bos"] is not None
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{kind}_token": pieces[id].text for kind, id in ids.items() if id is not None},
        "add_bos_token": adds_bos,
        "clean_up_tokenization_spaces": False,
    }
    content = _tokenizer_json(pieces, merges, name, ids["bos"] if adds_bos else None)
    files = {JSON_NAME: json.dumps(content).encode(), CONFIG_NAME: json.dumps(config).encode()}
    ends = (read_token_id(metadata, key, pieces, path) for key in END_KEYS if f"{PREFIX}{key}_token_id" in metadata)
    found = [id for id in ends if id is not None]
    return ByteLevelTokenizer(files, f"the tokenizer in {path}").with_rules(end_ids=found)


def find_splitter(content: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for the rule by which a `tokenizer.json` splits a text into words; None if it has none."""
    found = (without_offsets(content.get("pre_tokenizer")), content["model"].get("ignore_merges") is True)
    for name, (splitter, ignores_merges) in SPLITTERS.items():
        if content.get("normalizer") is None and found == (without_offsets(splitter), ignores_merges):
            return name
    return None


def _name_of(content: Mapping[str, Any], tokenizer: str) -> str:
    """As `find_splitter`. Raises InputError if llama.cpp has no name for the rule."""
    name = find_splitter(content)
    if name is None:
        raise InputError(
            f"{tokenizer} splits a text by another rule than those that tinyllm writes to GGUF "
            f"({', '.join(SPLITTERS)}); use safetensors"
        )
    return name


def _read_pieces(metadata: Mapping[str, Value], path: Path) -> list[Piece]:
    texts = metadata.get(f"{PREFIX}tokens")
    if not isinstance(texts, list) or not texts:
        raise FormatError(f"{path}: {PREFIX}tokens is not an array of strings with one for each token")
    types = read_numbers(metadata, "token_type", "<i4", len(texts), path)
    allowed = {
        PieceType.NORMAL: PieceType.NORMAL,
        PieceType.CONTROL: PieceType.CONTROL,
        PieceType.UNKNOWN: PieceType.CONTROL,
        PieceType.UNUSED: PieceType.CONTROL,
        PieceType.USER_DEFINED: PieceType.USER_DEFINED,
    }
    for id, type in enumerate(types):
        if type not in allowed:
            raise FormatError(f"{path}: {PREFIX}token_type of id {id} is {type}, expected 1 to 5")
    return [Piece(text, 0.0, allowed[type]) for text, type in zip(texts, types, strict=True)]


def _tokenizer_json(pieces: list[Piece], merges: list[str], name: str, bos_id: int | None) -> dict[str, Any]:
    """The content of `tokenizer.json`; a prompt begins with `bos_id` if it is not None."""
    splitter, ignores_merges = SPLITTERS[name]
    kept = [(id, piece) for id, piece in enumerate(pieces) if piece.type != PieceType.NORMAL]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(piece.text, id, special=piece.type == PieceType.CONTROL) for id, piece in kept],
        "normalizer": None,
        "pre_tokenizer": splitter,
        "post_processor": None if bos_id is None else _begin_with(pieces[bos_id].text, bos_id),
        "decoder": _BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignores_merges,
            "vocab": {piece.text: id for id, piece in enumerate(pieces)},
            "merges": merges,
        },
    }


def _begin_with(text: str, id: int) -> dict[str, Any]:
    """The post-processor that adds a token before each text."""

    def sequence(name: str, type_id: int) -> list[dict[str, Any]]:
        return [
            {"SpecialToken": {"id": text, "type_id": type_id}},
            {"Sequence": {"id": name, "type_id": type_id}},
        ]

    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": sequence("A", 0) + sequence("B", 1),
        "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}},
    }
