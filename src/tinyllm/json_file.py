"""Reads a JSON object from a file, with a limit of size, and refuses repeated keys."""

import json
from pathlib import Path
from typing import Any

from tinyllm.errors import FormatError

LIMIT_BYTES = 32 * 2**20
"""Limit of the file; a tokenizer.json of 128,000 tokens has 17 MB, and Python objects need about ten times as much."""


def read_json_object(path: Path, limit_bytes: int | None = None) -> dict[str, Any]:
    """The JSON object in the file `path`. Raises FormatError if it is not an object, or too large.

    The default of `limit_bytes` is `LIMIT_BYTES`.
    """
    size, limit = path.stat().st_size, LIMIT_BYTES if limit_bytes is None else limit_bytes
    if size > limit:
        raise FormatError(f"{path} has {size} bytes, expected at most {limit}")
    return parse_json_object(path.read_bytes(), str(path))


def parse_json_object(content: bytes, name: str) -> dict[str, Any]:
    """The JSON object in `content`; `name` is for messages."""
    try:
        value = json.loads(content, object_pairs_hook=_without_repetition)
        if b"\\ud" in content.lower():
            # JSON can spell single surrogates, which UTF-8 cannot encode; encoding finds them.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{name} holds a {type(value).__name__}, expected an object")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    object: dict[str, Any] = {}
    for key, value in pairs:
        if key in object:
            raise ValueError(f"the key {key[:60]!r} occurs twice in one object")
        object[key] = value
    return object
