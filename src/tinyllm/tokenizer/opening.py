"""Opens a tokenizer of either kind: SentencePiece's `tokenizer.model`, or byte-level BPE's `tokenizer.json`.

A directory with both is a SentencePiece tokenizer: its `tokenizer.json` has equal ids.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from tinyllm.errors import ArtifactError, FormatError
from tinyllm.json_file import read_json_object
from tinyllm.tokenizer.byte_level import JSON_NAME, ByteLevelTokenizer, is_byte_level
from tinyllm.tokenizer.codec import MODEL_NAME, Tokenizer


def open_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a `.model` file, a byte-level `tokenizer.json`, or a directory with one of them.

    Raises InputError if there is none, FormatError or ArtifactError if it is damaged.
    """
    path = Path(path)
    if not has_byte_level(path):
        return Tokenizer.load(path)
    tokenizer = ByteLevelTokenizer.load(path)
    if path.is_dir():
        _check_manifest(path)
    return tokenizer


def tokenizer_of_files(files: Mapping[str, bytes], name: str) -> Tokenizer:
    """The tokenizer whose `Tokenizer.files` are `files`; `name` is for messages."""
    if MODEL_NAME in files:
        return Tokenizer.from_bytes(files[MODEL_NAME], name)
    return ByteLevelTokenizer(files, name)


def has_byte_level(path: Path) -> bool:
    """Whether `path` is a `tokenizer.json` of byte-level BPE, or a directory with one and without a `.model` file."""
    if path.is_dir():
        with os.scandir(path) as entries:  # a folder of shards may have many files
            has_model = any(entry.name.endswith(".model") for entry in entries)
        return not has_model and has_byte_level(path / JSON_NAME)
    if path.suffix != ".json" or not path.is_file():
        return False
    if b"ByteLevel" not in path.read_bytes():
        return False
    try:
        return is_byte_level(read_json_object(path))
    except FormatError:
        return True  # the reader names the damage


def _check_manifest(directory: Path) -> None:
    """Raises ArtifactError if the manifest of `directory` lists another `tokenizer.json`."""
    from tinyllm import storage

    if not (directory / storage.MANIFEST_NAME).exists():
        return
    entry = storage.find_entry(directory, JSON_NAME)
    if entry is not None and entry.sha256 != hashlib.sha256((directory / JSON_NAME).read_bytes()).hexdigest():
        raise ArtifactError(f"{directory / JSON_NAME} is damaged: its SHA-256 is not the one in the manifest")
