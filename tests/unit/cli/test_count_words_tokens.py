"""Counts of a text, a file and standard input."""

import io
import sys
from pathlib import Path

import pytest

from tinyllm.cli import count_words_tokens
from tinyllm.tokenizer.codec import Tokenizer


@pytest.fixture
def tokenizer_file(tiny_tokenizer: Tokenizer, tmp_path: Path) -> str:
    (tmp_path / "tiny.model").write_bytes(tiny_tokenizer.model_proto)
    return str(tmp_path / "tiny.model")


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        count_words_tokens.main(arguments)
    return int(ended.value.code or 0)


def test_a_text_a_file_and_standard_input_count_the_same(
    tokenizer_file: str,
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "the red fox  saw été"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    for source in ([text], ["--file", str(tmp_path / "text.txt")], ["-"]):
        assert call(*source, "--tokenizer", tokenizer_file) == 0
        expected = f"文本: {text}\n单词数: 5\nToken数: {tiny_tokenizer.num_tokens(text)}\n"
        assert capsys.readouterr().out == expected


def test_errors_say_what_to_do(tokenizer_file: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("--tokenizer", str(tmp_path / "none")) == 1
    assert "none does not exist; name one: --tokenizer FILE" in capsys.readouterr().err
    assert call("a text", "--file", "x", "--tokenizer", tokenizer_file) == 2
    assert "not both" in capsys.readouterr().err
