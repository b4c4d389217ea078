"""Texts have the same ids from every source, and are printed on every terminal, pipe and closed stream."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tinyllm
from tinyllm.course.run_llama import main as run_llama
from tinyllm.tokenizer.codec import Tokenizer

WINDOWS = b"\xef\xbb\xbfOnce upon\r\na time\rthe fox\r\n"
PLAIN = "Once upon\na time\nthe fox"
Call = Callable[..., tuple[int, str, str]]
MakeModelDir = Callable[..., Path]
posix = pytest.mark.skipif(sys.platform == "win32", reason="descriptors and terminals of POSIX")


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    return {**kept, "PYTHONPATH": str(Path(tinyllm.__file__).parents[1]), **changes}


def run(*arguments: object, redirect: str = "", **changes: str) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a `tinyllm` process that a shell starts with `redirect` appended."""
    command = ["sh", "-c", f'"$@" {redirect}', "sh", sys.executable, "-m", "tinyllm", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, env=environment(**changes), check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_a_text_has_the_same_ids_from_every_source(
    call_tinyllm: Call, tokenizer_file: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = " ".join(map(str, tiny_tokenizer.encode(PLAIN))) + "\n"
    Path("windows.txt").write_bytes(WINDOWS)
    tokenizer = ("--tokenizer", tokenizer_file)
    assert call_tinyllm("tokenizer", "encode", PLAIN, *tokenizer)[1] == expected
    assert call_tinyllm("tokenizer", "encode", WINDOWS.decode().removesuffix("\r\n"), *tokenizer)[1] == expected
    assert call_tinyllm("tokenizer", "encode", "--file", "windows.txt", *tokenizer)[1] == expected
    assert call_tinyllm("tokenizer", "encode", "FILE:windows.txt", *tokenizer)[1] == expected
    assert call_tinyllm("tokenizer", "encode", "-", *tokenizer, stdin=WINDOWS.decode())[1] == expected
    _, out, _ = call_tinyllm("tokenizer", "count", "windows.txt", *tokenizer)
    assert out.splitlines()[1].split()[3] == str(len(tiny_tokenizer.encode(PLAIN)))


def test_prompts_from_every_source_are_the_same(call_tinyllm: Call, make_model_dir: MakeModelDir) -> None:
    model = make_model_dir(context_length=64)
    Path("windows.txt").write_bytes(WINDOWS)
    flags = ("--max-new-tokens", "4", "--device", "cpu")
    code, expected, _ = call_tinyllm("generate", model, PLAIN, *flags)
    assert code == 0
    assert expected.startswith(PLAIN)
    assert call_tinyllm("generate", model, "FILE:windows.txt", *flags)[1] == expected
    assert call_tinyllm("generate", model, "-", *flags, stdin=WINDOWS.decode())[1] == expected
    assert call_tinyllm("generate", model, PLAIN.replace("\n", "\r\n"), *flags)[1] == expected


def test_a_space_at_the_end_of_a_prompt_gives_a_note(
    call_tinyllm: Call,
    in_empty_folder: Callable[[Callable[..., object]], Call],
    make_model_dir: MakeModelDir,
) -> None:
    model, advice = make_model_dir(), "the prompt ends with a space"
    flags = ("--max-new-tokens", "2")
    assert call_tinyllm("generate", model, "Once ", *flags)[2].count(advice) == 1
    assert advice not in call_tinyllm("generate", model, "Once", *flags)[2]
    assert advice not in call_tinyllm("generate", model, "--unconditional", *flags)[2]
    course = in_empty_folder(run_llama)
    code, out, err = course("--pretrained-model-path", model, "--prefix", "Once ", *flags)
    assert (code, advice in out, err.count(advice)) == (0, False, 1)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("flags", [(), ("--stream",), ("--json",)])
def test_generate_writes_into_every_encoding(
    call_tinyllm: Call,
    make_model_dir: MakeModelDir,
    encoding: str,
    flags: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    code, _, _ = call_tinyllm("generate", make_model_dir(), "▁ 🦊 fox", "--max-new-tokens", "8", *flags)
    content = out.buffer
    assert isinstance(content, io.BytesIO)
    fox = "\\ud83e\\udd8a" if flags == ("--json",) else "\\U0001f98a"
    assert (code, fox in content.getvalue().decode(encoding)) == (0, True)


@posix
def test_pieces_reach_an_ascii_pipe(tokenizer_file: Path) -> None:
    command = ("tokenizer", "encode", "Once", "--pieces", "--tokenizer", tokenizer_file)
    for changes in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"}):
        code, out, err = run(*command, **changes)
        assert (code, b"\\u2581Once" in out, err) == (0, True, b"")


@posix
def test_a_prompt_under_the_c_locale_is_the_same_text(tokenizer_file: Path, tiny_tokenizer: Tokenizer) -> None:
    c_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, out, err = run("tokenizer", "encode", "Zoë ▁", "--tokenizer", tokenizer_file, **c_locale)
    assert (code, err) == (0, b"")
    assert out.decode().split() == [str(id) for id in tiny_tokenizer.encode("Zoë ▁")]


@posix
@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        (">&-", (0, b"", b"standard output is closed: the output of this command is lost\n")),
        (">&- 2>&-", (0, b"", b"")),
        ("<&-", (0, b"339\n", b"")),
        ("<&- 2>&-", (0, b"339\n", b"")),
        (">/dev/full", (1, b"", b"tinyllm: standard output: No space left on device\n")),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_closed_and_full_streams(
    redirect: str, expected: tuple[int, bytes, bytes], tokenizer_file: Path, tiny_tokenizer: Tokenizer
) -> None:
    ids = " ".join(map(str, tiny_tokenizer.encode("fox"))).encode()
    found = run("tokenizer", "encode", "fox", "--tokenizer", tokenizer_file, redirect=redirect)
    assert found == (expected[0], expected[1].replace(b"339", ids), expected[2])


@posix
def test_closed_standard_input_gives_one_line(tokenizer_file: Path) -> None:
    for command in ("encode", "decode", "count"):
        code, out, err = run("tokenizer", command, "-", "--tokenizer", tokenizer_file, redirect="<&-")
        assert (code, out) == (1, b"")
        assert err.startswith(b"tinyllm: there is no standard input: it is closed")
        assert err.count(b"\n") == 1


@posix
def test_a_reader_that_stops_early_is_not_an_error(tokenizer_file: Path) -> None:
    code, _, err = run("data", "storybook", "--stories", "20000", "-o", "-", redirect="| head -1 >/dev/null")
    assert (code, err) == (0, b"")


@posix
def test_generated_text_cannot_control_a_terminal(tokenizer_file: Path, tiny_tokenizer: Tokenizer) -> None:
    text = "fox\x1b[2J\x07\tend"
    command = [sys.executable, "-m", "tinyllm", "tokenizer", "decode", "--tokenizer", str(tokenizer_file)]
    command += map(str, tiny_tokenizer.encode(text))
    piped = subprocess.run(command, capture_output=True, env=environment(), check=True)
    assert piped.stdout.decode() == text + "\n"
    leader, follower = os.openpty()
    subprocess.run(command, stdout=follower, env=environment(), check=True)
    os.close(follower)
    shown = os.read(leader, 1000)
    os.close(leader)
    assert shown == b"fox\\x1b[2J\\x07\tend\r\n"


@posix
def test_the_key_of_a_text_is_the_same_under_the_c_locale(tokenizer_file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"Gedicht ü": ["the fox", "saw a ball"]}\n', encoding="utf-8")
    command = ("tokenizer", "count", tmp_path / "a.jsonl", "--text-key", "Gedicht ü", "--tokenizer", tokenizer_file)
    code, out, err = run(*command, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (code, err) == (0, b"")
    assert out.split()[-4] == b"5"
