"""A JSON object from a file that somebody else wrote: limited in size, without a key twice, refused in one line."""

import json
from pathlib import Path
from typing import Any

from tinyllm.errors import FormatError

LIMIT_BYTES = 32 * 2**20
"""A tokenizer.json of 128,000 tokens has 17 MB; Python's objects for it take some ten times as much."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in the file `path`. Raises FormatError where it is none, or larger than any of its kind."""
    size = path.stat().st_size
    if size > LIMIT_BYTES:
        raise FormatError(f"{path} has {size} bytes, expected at most {LIMIT_BYTES}")
    return parse_json_object(path.read_bytes(), str(path))


def parse_json_object(content: bytes, name: str) -> dict[str, Any]:
    """The object that `content` is; `name` is for messages."""
    try:
        value = json.loads(content, object_pairs_hook=_without_repetition)
        if b"\\ud" in content.lower():
            # JSON can spell half a character, which no UTF-8 text can hold; this finds it.
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
