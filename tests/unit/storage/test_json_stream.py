"""The streaming reader gives the values of `json.loads`, for any size of pieces, and refuses damaged texts."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.storage import json_stream
from tinyllm.storage.json_stream import JsonReader

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def read(text: bytes) -> Any:
    reader = JsonReader(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
    value = walk(reader, depth=2)
    reader.end()
    return value


def walk(reader: JsonReader, depth: int) -> Any:
    """The next value, with the outer `depth` levels of objects and lists read part by part."""
    if depth and reader.begins("{"):
        return {key: walk(reader, depth - 1) for key in reader.members()}
    if depth and reader.begins("["):
        return [walk(reader, depth - 1) for _ in reader.items()]
    return reader.value()


@given(VALUES, st.integers(1, 40), st.sampled_from([None, 0, 2]))
def test_every_value_is_read_in_pieces_of_any_size(value: Any, num_characters: int, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK_CHARACTERS", num_characters)
        assert read(text) == value


DAMAGED = (
    "",
    "{",
    "[",
    '{"a"',
    '{"a": 1',
    '{"a": 1,}',
    "[1,]",
    "[1 2]",
    '{"a" 1}',
    "{1: 2}",
    "{} {}",
    "[1]x",
    "nul",
    "1.",
)


@pytest.mark.parametrize("text", [*DAMAGED, "]", '{"a": "b}', '{"a": [1, {"b": }]}', '{"a": "\x01"}'])
def test_a_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the message is that of the damage)
        read(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        read(b'{"a": "\xff"}')


def test_a_passed_value_is_not_in_memory() -> None:
    text = json.dumps({f"file-{number}": {"bytes": number} for number in range(100_000)}).encode()
    reader = JsonReader(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
    longest = 0
    for number, name in enumerate(reader.members()):
        assert (name, reader.value()) == (f"file-{number}", {"bytes": number})
        longest = max(longest, len(reader._text))
    assert longest < 3 * json_stream.CHUNK_CHARACTERS < len(text) / 10
