"""`tinyllm score` as a person types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tinyllm
from tinyllm.model_dir import bundled_model

Call = Callable[..., tuple[int, str, str]]
MODEL = bundled_model()
STORY = "Once upon a time there was a quiet boy named Luke. He had a splendid kite.\n"
ODD = "The kite fell — “never mind”, said Luke.\n" * 60


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "story.txt", tmp_path / "odd.txt"]
    for path, text in zip(paths, (STORY, ODD), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def test_the_table_has_the_figures_of_each_file_and_of_all(call_tinyllm: Call, files: list[Path]) -> None:
    code, out, _ = call_tinyllm("score", MODEL, *files, "--device", "cpu")
    assert code == 0
    header, *rows = (line.split() for line in out.splitlines())
    assert header == ["file", "bytes", "tokens", "bits/byte", "perplexity"]
    scores = tinyllm.load(device="cpu").score([STORY.rstrip("\n"), ODD.rstrip("\n")])
    for path, row, score in zip(files, rows, scores, strict=False):
        figures = (f"{score.num_bytes:,}", f"{len(score.token_ids):,}", f"{score.bits_per_byte:.3f}")
        assert row == [str(path), *figures, f"{score.perplexity:,.2f}"]
    assert rows[2][0] == "together"
    assert rows[2][2] == f"{sum(len(score.token_ids) for score in scores):,}"


def test_json_has_every_number(call_tinyllm: Call, files: list[Path]) -> None:
    found = json.loads(call_tinyllm("score", MODEL, *files, "--device", "cpu", "--json", "--tokens")[1])
    assert found["engine"].startswith("CPU engine, fp32 weights")
    assert [entry["file"] for entry in found["files"]] == [str(path) for path in files]
    for entry, text in zip(found["files"], (STORY, ODD), strict=True):
        assert entry["bytes"] == len(text.encode()) - 1
        assert entry["tokens"] == len(entry["token_ids"]) == len(entry["pieces"]) == len(entry["log_probabilities"])
        assert entry["log_probability"] == pytest.approx(sum(entry["log_probabilities"]))
    assert found["total"]["log_probability"] == pytest.approx(sum(each["log_probability"] for each in found["files"]))
    assert "token_ids" not in json.loads(call_tinyllm("score", MODEL, files[0], "--json")[1])["files"][0]


def test_tokens_are_one_a_line(call_tinyllm: Call, files: list[Path]) -> None:
    out = call_tinyllm("score", MODEL, files[0], "--tokens", "--device", "cpu")[1].splitlines()
    assert out[0] == f"{files[0]}: nats and piece of each token"
    assert out[1].split() == ["-1.813", "▁Once"]
    assert "\x1b" not in "".join(out)


def test_standard_input_is_a_file_too(call_tinyllm: Call, files: list[Path]) -> None:
    code, out, _ = call_tinyllm("score", MODEL, "-", "--device", "cpu", stdin=STORY)
    assert code == 0
    expected = call_tinyllm("score", MODEL, files[0], "--device", "cpu")[1]
    assert out.splitlines()[1].split()[1:] == expected.splitlines()[1].split()[1:]


def test_int8_weights_are_named(call_tinyllm: Call, files: list[Path]) -> None:
    found = json.loads(call_tinyllm("score", MODEL, files[0], "--device", "cpu", "--weights", "int8", "--json")[1])
    assert "int8 weights" in found["engine"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty.txt is empty; give some text"),
        (b"\n", "empty.txt is empty; give some text"),
        (b"caf\xe9", "empty.txt is not UTF-8 at line 1, byte 3"),
        (None, "empty.txt does not exist"),
    ],
)
def test_unusable_files_are_one_line(call_tinyllm: Call, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "empty.txt"
    if content is not None:
        path.write_bytes(content)
    code, out, err = call_tinyllm("score", MODEL, path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_a_call_without_files_or_with_a_wrong_model_is_one_line(call_tinyllm: Call, tmp_path: Path) -> None:
    code, _, err = call_tinyllm("score", MODEL)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("tinyllm: give text files to score, or - for standard input")
    (tmp_path / "story.txt").write_text(STORY, encoding="utf-8")
    code, _, err = call_tinyllm("score", tmp_path / "nothing", tmp_path / "story.txt")
    assert (code, err.count("\n")) == (1, 1)
    code, _, err = call_tinyllm("score", MODEL, tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot read" in err
