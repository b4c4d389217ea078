"""Reads a tokenizer from a `.model` file, a `tokenizer.json`, a `tokenizer.bin` or a directory."""

from pathlib import Path
from typing import Any

from tinyllm.errors import FormatError
from tinyllm.exchange.tokenizer_bin import read_tokenizer_bin
from tinyllm.exchange.tokenizer_json import (
    AddedToken,
    read_added_tokens,
    read_spacing,
    read_tokenizer_config,
    read_tokenizer_json,
    reads_bos,
    user_defined_piece,
)
from tinyllm.json_file import read_json_object
from tinyllm.storage import MANIFEST_NAME
from tinyllm.storage.remote.fetch import fetch
from tinyllm.tokenizer.byte_level import ByteLevelTokenizer, is_byte_level
from tinyllm.tokenizer.codec import MODEL_NAME, Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType, Spacing
from tinyllm.tokenizer.opening import open_tokenizer
from tinyllm.tokenizer.resizing import MOST_FILLERS, filler, fit_to, with_pieces

JSON_NAME, CONFIG_NAME, ADDED_NAME = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
MODEL_CONFIG_NAME = "config.json"


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a `.model` file, a `tokenizer.json`, a `tokenizer.bin` or a directory.

    Raises InputError if there is none, FormatError if it is damaged or of another kind, and the errors of `fetch`.
    """
    path = fetch(path, below=("model",))
    if path.is_dir():
        found = None if (path / MANIFEST_NAME).exists() else read_directory_tokenizer(path)
        return open_tokenizer(path) if found is None else _fit_to_model(found, path)
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(64)
        # A `.bin` starts with a small number in four bytes; a `.model` starts with its first piece: tag, size, tag.
        if start[2:4] == b"\0\0":
            return read_tokenizer_bin(path)
        if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
            return _read_json(path)
    return Tokenizer.load(path)


def _fit_to_model(tokenizer: Tokenizer, directory: Path) -> Tokenizer:
    """`tokenizer` with as many tokens as the model in `directory` has rows, if there is a model that it fits."""
    path = directory / MODEL_CONFIG_NAME
    rows = read_json_object(path).get("vocab_size") if path.is_file() else None
    return (fit_to(tokenizer, rows) or tokenizer) if type(rows) is int and rows > 0 else tokenizer


def read_directory_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer of a Hugging Face directory with its added tokens; None if there is none.

    Raises FormatError if a file is damaged, or if tinyllm would give other ids than transformers.
    """
    if (directory / MODEL_NAME).is_file():
        return _apply_json_files(Tokenizer.load(directory / MODEL_NAME), directory)
    if (directory / JSON_NAME).is_file():
        return _read_json(directory / JSON_NAME)
    return None


def _read_json(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json` of either kind."""
    return ByteLevelTokenizer.load(path) if is_byte_level(read_json_object(path)) else read_tokenizer_json(path)


def _apply_json_files(tokenizer: Tokenizer, directory: Path) -> Tokenizer:
    """`tokenizer` with the rules of the JSON files next to it: added tokens, spaces before sections, BOS."""
    path, config = directory / JSON_NAME, read_tokenizer_config(directory)
    content = read_json_object(path) if path.is_file() else {}
    if content or "add_bos_token" in config:
        bos = "" if tokenizer.bos_id is None else tokenizer.id_to_piece(tokenizer.bos_id)
        tokenizer = tokenizer.with_rules(adds_bos=reads_bos(content, config, bos, path))
    prefix, removes, spacing = _whitespace(tokenizer)
    if content and _is_metaspace(content):
        found = read_spacing(content, path)
        if found[:2] != (prefix, removes):
            return read_tokenizer_json(path)  # the two files differ, and transformers uses this one
        spacing = found[2]
    elif config.get("legacy") is False and not content:
        spacing = Spacing.FIRST
    added = _added_tokens(content, config, directory)
    if spacing == Spacing.WHOLE and any(not token.is_special for token in added):
        spacing = Spacing.SECTIONS
    pieces = _with_added(tokenizer.pieces, added, prefix, spacing, path)
    if pieces == tokenizer.pieces and spacing == tokenizer.proto.spacing:
        return tokenizer
    return with_pieces(tokenizer, pieces, spacing=spacing)


def _whitespace(tokenizer: Tokenizer) -> tuple[bool, bool, Spacing]:
    proto = tokenizer.proto
    return proto.add_dummy_prefix, proto.remove_extra_whitespaces, proto.spacing


def _is_metaspace(content: dict[str, Any]) -> bool:
    splitter = content.get("pre_tokenizer")
    return isinstance(splitter, dict) and splitter.get("type") == "Metaspace"


def _added_tokens(content: dict[str, Any], config: dict[str, Any], directory: Path) -> list[AddedToken]:
    """The added tokens from the first file that lists them."""
    if content:
        return read_added_tokens(content.get("added_tokens") or [], directory / JSON_NAME)
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        listed = [
            {**token, "id": int(id)} if id.isdecimal() and isinstance(token, dict) else token
            for id, token in decoder.items()
        ]
        return read_added_tokens(listed, directory / CONFIG_NAME)
    path = directory / ADDED_NAME
    if not path.is_file():
        return []
    listed = [{"content": text, "id": id, "special": True} for text, id in read_json_object(path).items()]
    return read_added_tokens(listed, path)


def _with_added(
    pieces: list[Piece], added: list[AddedToken], prefix: bool, spacing: Spacing, path: Path
) -> list[Piece]:
    """`pieces` with each added token at its id, and unused pieces at skipped ids."""
    last = max((token.id for token in added), default=0)
    if last - len(pieces) > MOST_FILLERS:
        raise FormatError(f"{path}: an added token has the id {last}, but there are only {len(pieces)} tokens")
    changed = [*pieces, *map(filler, range(len(pieces), last + 1))]
    for token in added:
        old = changed[token.id]
        if old.type in (PieceType.UNKNOWN, PieceType.BYTE):
            continue
        if token.is_special:
            changed[token.id] = old._replace(text=token.text, type=PieceType.CONTROL)
        elif old.type != PieceType.USER_DEFINED:
            changed[token.id] = user_defined_piece(token, prefix=prefix, spacing=spacing)
    return changed
