"""Tests the counts of a text, a file and standard input."""

import io
import sys
from pathlib import Path

import pytest

from tinyllm.course import count_words_tokens
from tinyllm.model_dir import bundled_model
from tinyllm.tokenizer.codec import Tokenizer


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        count_words_tokens.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_a_text_a_file_and_standard_input_count_the_same(
    tokenizer_file: Path,
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


def test_errors_name_the_remedy(tokenizer_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("--tokenizer", str(tmp_path / "none")) == 1
    assert "none does not exist; name one: --tokenizer FILE" in capsys.readouterr().err
    assert call("a text", "--file", "x", "--tokenizer", tokenizer_file) == 2
    assert "not both" in capsys.readouterr().err


def test_the_bundled_tokenizer_is_the_default_with_a_note(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call() == 0
    out, err = capsys.readouterr()
    bundled = Tokenizer.load(bundled_model())
    assert out.splitlines()[1:] == ["单词数: 54", f"Token数: {bundled.num_tokens(count_words_tokens.DOCUMENT_TEXT)}"]
    assert err.count("\n") == 1
    assert "counted with the bundled tokenizer of 2,048 tokens; for the document's 71" in err


@pytest.mark.parametrize("place", count_words_tokens.LLAMA2_PLACES)
def test_the_llama_2_tokenizer_is_found(
    place: str,
    tiny_tokenizer: Tokenizer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(tiny_tokenizer.model_proto)
    (tmp_path / "elsewhere").mkdir()
    for folder, script in ((tmp_path, "count.py"), (tmp_path / "elsewhere", str(tmp_path / "count.py"))):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [script])
        assert call("the red fox") == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[2] == f"Token数: {tiny_tokenizer.num_tokens('the red fox')}"
        assert err == ""
