"""Tests that unsuitable JSON of other tools is refused in one line with the file's name."""

from pathlib import Path

import pytest

from tinyllm import json_file
from tinyllm.errors import FormatError
from tinyllm.json_file import parse_json_object, read_json_object

REFUSED = {
    "cut": (b'{"a": ', "not valid JSON"),
    "an array": (b"[1, 2]", "holds a list, expected an object"),
    "a key twice": (b'{"a": {"b": 1, "b": 2}}', "the key 'b' occurs twice"),
    "deep": (b"[" * 100_000, "not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', "not valid JSON"),
    "half a character": (b'{"a": "\\uD800"}', "not valid JSON"),
    "a number of 10,000 digits": (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_content_than_a_plain_object_is_refused(case: str) -> None:
    content, message = REFUSED[case]
    with pytest.raises(FormatError, match=message) as caught:
        parse_json_object(content, "config.json")
    assert str(caught.value).startswith("config.json")


def test_surrogate_pairs_are_read() -> None:
    assert parse_json_object(b'{"a": "\\ud83d\\ude00"}', "config.json") == {"a": "😀"}


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "LIMIT_BYTES", 8)
    (tmp_path / "config.json").write_text('{"a": 100}')
    with pytest.raises(FormatError, match="has 10 bytes, expected at most 8"):
        read_json_object(tmp_path / "config.json")
