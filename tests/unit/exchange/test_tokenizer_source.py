"""Tests a tokenizer from any file or directory; tests/contract/test_foreign_directories.py uses transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.tokenizer_bin import tokenizer_to_bin
from tinyllm.exchange.tokenizer_source import load_tokenizer, read_directory_tokenizer
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.files import hugging_face_files
from tinyllm.tokenizer.model_proto import PieceType, Spacing


@pytest.fixture
def directory(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A directory with only a `tokenizer.model`."""
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model_proto)
    return tmp_path


def write(directory: Path, name: str, content: dict[str, Any]) -> None:
    (directory / name).write_text(json.dumps(content), encoding="utf-8")


def test_every_format_is_recognised_by_its_content(tokenizer: Tokenizer, tmp_path: Path) -> None:
    forms = {"a": tokenizer.model_proto, "b": tokenizer_to_bin(tokenizer)}
    forms["c"] = hugging_face_files(tokenizer, context_length=8)["tokenizer.json"]
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        assert load_tokenizer(tmp_path / name).encode("the red fox") == tokenizer.encode("the red fox")


def test_a_directory_with_only_a_tokenizer_json_is_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(hugging_face_files(tokenizer, context_length=8)["tokenizer.json"])
    assert load_tokenizer(tmp_path).encode("the red fox") == tokenizer.encode("the red fox")


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    assert read_directory_tokenizer(tmp_path) is None
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(InputError, match="does not exist"):
            load_tokenizer(path)


def test_added_tokens_of_the_config_follow_the_vocabulary(directory: Path, tokenizer: Tokenizer) -> None:
    decoder = {"320": {"content": "<pad>", "special": True}, "322": {"content": "<x>", "special": False}}
    write(directory, "tokenizer_config.json", {"added_tokens_decoder": decoder})
    read = load_tokenizer(directory)
    assert [(piece.text, piece.type.name) for piece in read.pieces[320:]] == [
        ("<pad>", "CONTROL"),
        ("[PAD321]", "CONTROL"),
        ("<x>", "USER_DEFINED"),
    ]
    fox = tokenizer.encode("fox")
    assert read.encode("fox<x>fox") == [*fox, 322, *fox]


def test_added_tokens_of_a_separate_file_are_read(directory: Path) -> None:
    write(directory, "added_tokens.json", {"<pad>": 320})
    read = load_tokenizer(directory)
    assert (read.vocab_size, read.pieces[320].type) == (321, PieceType.CONTROL)


def test_an_added_token_replaces_a_piece(directory: Path) -> None:
    write(directory, "tokenizer_config.json", {"added_tokens_decoder": {"319": {"content": "<|u|>", "special": True}}})
    read = load_tokenizer(directory)
    assert read.encode("<|u|>", allow_special=True) == [319]
    assert 319 not in read.encode("<|u|>")


def test_the_rules_of_the_config_are_used(directory: Path) -> None:
    assert load_tokenizer(directory).begins_with_bos
    write(directory, "tokenizer_config.json", {"add_bos_token": False, "legacy": False})
    read = load_tokenizer(directory)
    assert (read.begins_with_bos, read.proto.spacing) == (False, Spacing.FIRST)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", {"add_bos_token": "no"}, "add_bos_token is 'no', not true or false"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}, "has the id None"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": 5}}, "added_tokens holds 5"),
        ("added_tokens.json", {"<pad>": 10**9}, "has the id 1000000000, but there are only 320 tokens"),
        ("added_tokens.json", {"<pad>": -3}, "has the id -3"),
        ("tokenizer.json", {"added_tokens": 5}, "added_tokens is not an array"),
    ],
)
def test_damaged_files_raise_one_line(name: str, content: dict[str, Any], message: str, directory: Path) -> None:
    write(directory, name, content)
    with pytest.raises(FormatError, match=message) as caught:
        load_tokenizer(directory)
    assert "\n" not in str(caught.value)
