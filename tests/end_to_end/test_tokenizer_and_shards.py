"""`tinyllm tokenizer ...`, `prepare` and `data inspect`: output, errors, exit codes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tinyllm
from byte_level import save_byte_level
from outputs import contents
from reference_data import reduced_tokenizer

STORIES = [f"Tom saw {number} red birds and a big blue ball on day {number * 7}." for number in range(60)]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(call_tinyllm: Call, tmp_path: Path) -> Call:
    """Runs one command in a new folder with `stories.txt`."""
    (tmp_path / "stories.txt").write_text("\n<|endoftext|>\n".join(STORIES), encoding="utf-8")
    return call_tinyllm


def one_error(result: tuple[int, str, str], exit_code: int) -> str:
    code, out, err = result
    assert (code, out, err.count("\n")) == (exit_code, "", 1), result
    assert err.startswith("tinyllm: ")
    return err


def test_from_text_to_shards_and_back(call: Call) -> None:
    code, out, err = call("tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "tokenizer")
    assert (code, out) == (0, "")
    assert "tokenizer: 300 tokens, fingerprint" in err
    assert sorted(path.name for path in Path("tokenizer").iterdir()) == [
        *("manifest.json", "tokenizer.json", "tokenizer.model", "tokenizer.vocab", "tokenizer_config.json"),
    ]

    code, out, err = call("prepare", "stories.txt", "--tokenizer", "tokenizer", "-o", "shards")
    assert (code, out) == (0, "")
    assert "shards is ready; look at it with: tinyllm data inspect shards" in err

    code, out, err = call("data", "inspect", "shards", "--sample-tokens", "500")
    assert (code, err) == (0, "")
    assert re.search(r"^train +1 +5\d ", out, re.MULTILINE)
    assert "uint16, BOS before each document\n" in out
    assert "every checksum" in out
    # The sample is the first training document, up to the beginning of the next one.
    assert any(out.endswith(f"tokens of it:\n{story}\n") for story in STORIES[:5])

    code, _, err = call("prepare", "stories.txt", "--tokenizer", "tokenizer", "-o", "shards")
    assert (code, "up to date" in err) == (0, True)
    again = call("prepare", "stories.txt", "--tokenizer", "tokenizer", "-o", "shards", "--append-eos")
    assert "exists already" in one_error(again, 1)


def test_tasks_and_a_merge_give_the_shards_of_one_command(call: Call) -> None:
    assert call("tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "tokenizer")[0] == 0
    command = ["prepare", "stories.txt", "--tokenizer", "tokenizer", "-o"]
    assert call(*command, "whole")[0] == 0
    code, out, err = call(*command, "joint", "--task", "1", "--num-tasks", "2")
    assert (code, out) == (0, "")
    assert "joint.parts/part-00001-of-00002 is ready; join the parts of all 2 tasks with" in err
    missing = one_error(call(*command, "joint", "--merge"), 1)
    assert "part-00000-of-00002 is missing: of 2 tasks, 1 left no part (0); make it with:" in missing
    assert "tinyllm prepare --task 0 --num-tasks 2" in missing
    assert call(*command, "joint", "--task", "0", "--num-tasks", "2")[0] == 0
    foreign = one_error(call(*command, "joint", "--merge", "--append-eos"), 1)
    assert "append_eos=False instead of append_eos=True" in foreign
    code, _, err = call(*command, "joint", "--merge")
    assert (code, "joint is ready; look at it with: tinyllm data inspect joint" in err) == (0, True)
    assert contents(Path("joint")) == contents(Path("whole"))
    for flags, message in (
        (["--task", "0"], "--task needs --num-tasks"),
        (["--num-tasks", "2"], "--num-tasks needs --task"),
        (["--task", "0", "--num-tasks", "2", "--merge"], "give one of them"),
        (["--task", "2", "--num-tasks", "2"], "--task is 2; of 2 tasks it can be 0 to 1"),
    ):
        assert message in one_error(call(*command, "wrong", *flags), 2)


def test_a_text_can_come_from_standard_input(call: Call) -> None:
    call("tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "tokenizer")
    text = Path("stories.txt").read_text(encoding="utf-8")
    call("prepare", "stories.txt", "--tokenizer", "tokenizer", "-o", "from-file")
    code, _, err = call("prepare", "-", "--tokenizer", "tokenizer", "-o", "from-input", stdin=text)
    assert code == 0, err
    for name in ("train-00000.bin", "validation-00000.idx"):
        assert (Path("from-input") / name).read_bytes() == (Path("from-file") / name).read_bytes()


def test_encode_and_decode(call: Call) -> None:
    Path("tok4096.model").write_bytes(reduced_tokenizer("tok4096"))
    tokenizer = ("--tokenizer", "tok4096.model")
    ids = "1 346 2233 4010 1475 4021 2"
    assert call("tokenizer", "encode", "Hello, world!", "--bos", "--eos", *tokenizer) == (0, ids + "\n", "")
    assert call("tokenizer", "decode", *ids.split(), *tokenizer) == (0, "Hello, world!\n", "")
    assert call("tokenizer", "decode", "-", *tokenizer, stdin=ids) == (0, "Hello, world!\n", "")
    assert call("tokenizer", "encode", "-", *tokenizer, stdin="Hello, world!")[1] == ids[2:-2] + "\n"
    Path("text.txt").write_text("Hello, world!")
    code, out, _ = call("tokenizer", "encode", "--file", "text.txt", "--pieces", *tokenizer)
    assert (code, out.splitlines()[0]) == (0, "   346  ▁He")


def test_count(call: Call) -> None:
    Path("tok4096.model").write_bytes(reduced_tokenizer("tok4096"))
    tokenizer = ("--tokenizer", "tok4096.model")
    code, out, err = call("tokenizer", "count", "Hello, world!", *tokenizer)
    assert (code, out.splitlines()[1].split()[:4], err) == (0, ["text", "1", "2", "5"], "")
    Path("other.txt").write_text("Hello, world!")
    code, out, _ = call("tokenizer", "count", "stories.txt", "other.txt", *tokenizer)
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    words = sum(len(story.split()) for story in STORIES)
    assert rows["stories.txt"][:2] == ["60", str(words)]
    assert rows["other.txt"][:3] == ["1", "2", "5"]
    assert rows["together"][:2] == ["61", str(words + 2)]
    assert "does not exist" in one_error(call("tokenizer", "count", "absent.txt", *tokenizer), 1)


def test_errors_give_one_line(call: Call) -> None:
    train = ("tokenizer", "train", "stories.txt", "-o", "tokenizer", "--vocab-size")
    assert "the largest it allows is" in one_error(call(*train, "9000"), 1)
    assert "--vocab-size is 5; it can be 260" in one_error(call(*train, "5"), 2)
    Path("empty.txt").write_text("\n\n")
    assert "empty.txt" in one_error(call("tokenizer", "train", "empty.txt", "-o", "tokenizer"), 1)
    assert "make a tokenizer with" in one_error(call("tokenizer", "encode", "text"), 1)
    assert call(*train, "300")[0] == 0
    assert "id 300 is out of range" in one_error(call("tokenizer", "decode", "300"), 1)
    assert "'x' is not a token id" in one_error(call("tokenizer", "decode", "x"), 2)
    assert "give token ids" in one_error(call("tokenizer", "decode"), 2)
    assert "give a text to encode, FILE:path, " in one_error(call("tokenizer", "encode"), 2)
    assert "FILE: names no file; give FILE:path, or the text in" in one_error(call("tokenizer", "encode", "FILE:"), 2)
    assert "absent.txt does not exist" in one_error(call("tokenizer", "encode", "FILE:absent.txt"), 1)
    model = Path("tokenizer/tokenizer.model")
    model.write_bytes(model.read_bytes()[:1000])
    assert "tokenizer.model is damaged" in one_error(call("tokenizer", "encode", "text"), 1)
    bare = model.rename("bare.model")
    assert "not a whole SentencePiece model" in one_error(
        call("tokenizer", "encode", "text", "--tokenizer", str(bare)), 1
    )
    assert "does not exist; make shards with" in one_error(call("data", "inspect", "absent"), 1)


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("tokenizer train", "--vocab-size INT"),
        ("tokenizer encode", "--pieces"),
        ("tokenizer decode", "--tokenizer PATH"),
        ("tokenizer count", "--text-key STR"),
        ("prepare", "--append-eos"),
        ("data inspect", "--sample-tokens INT"),
    ],
)
def test_help_names_the_flags(call: Call, command: str, flag: str) -> None:
    code, out, err = call(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert f"Usage: tinyllm {command}" in out
    assert flag in out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_after_sigint_the_same_command_continues(call: Call, tmp_path: Path) -> None:
    assert call("tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "tokenizer")[0] == 0
    Path("big.txt").write_text("\n<|endoftext|>\n".join(f"{story} {n}" for n in range(1500) for story in STORIES))
    command = ["prepare", "big.txt", "--tokenizer", "tokenizer", "-o", "shards", "--workers", "2"]
    command += ["--shard-tokens", "50000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyllm", *command],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tinyllm.__file__).parents[1])},
    )
    deadline = time.monotonic() + 60
    while (
        not any(Path().glob(".tinyllm-*.draft/new/train-00001.bin"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "tinyllm: stopped; finished shards of shards are kept; the same command goes on from them\n"
    code, _, err = call(*command)
    assert (code, "resuming an interrupted prepare" in err) == (0, True)
    assert call(*command[:5], "whole", *command[6:])[0] == 0
    for path in Path("whole").glob("[!.]*"):
        assert path.read_bytes() == (Path("shards") / path.name).read_bytes()


def test_a_tokenizer_json_is_a_tokenizer(call: Call) -> None:
    call("tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "tokenizer")
    expected = call("tokenizer", "encode", "Tom saw a ball", "--tokenizer", "tokenizer")
    assert call("tokenizer", "encode", "Tom saw a ball", "--tokenizer", "tokenizer/tokenizer.json") == expected
    assert call("tokenizer", "count", "stories.txt", "--tokenizer", "tokenizer/tokenizer.json")[0] == 0
    for name, tokenizer in (("a", "tokenizer"), ("b", "tokenizer/tokenizer.json")):
        assert call("prepare", "stories.txt", "--tokenizer", tokenizer, "-o", name)[0] == 0
    assert Path("a/train-00000.bin").read_bytes() == Path("b/train-00000.bin").read_bytes()
    assert call("data", "inspect", "b")[0] == 0


def test_a_byte_level_tokenizer_encodes_and_prepares(call: Call) -> None:
    """One without special tokens encodes; shards need a token that begins each document."""
    save_byte_level("smollm", Path("smollm"))
    text = "the red fox 12 🙂"
    ids = call("tokenizer", "encode", text, "--tokenizer", "smollm")[1].split()
    assert call("tokenizer", "decode", *ids, "--tokenizer", "smollm")[1] == f"{text}\n"
    assert call("prepare", "stories.txt", "--tokenizer", "smollm", "-o", "shards")[0] == 0
    assert call("data", "inspect", "shards")[0] == 0
    Path("smollm/tokenizer_config.json").unlink()
    assert call("tokenizer", "encode", text, "--tokenizer", "smollm/tokenizer.json")[1].split() == ids
    assert "no BOS" in one_error(call("prepare", "stories.txt", "-o", "x", "--tokenizer", "smollm/tokenizer.json"), 1)


def test_reserved_pieces_are_tokens_only_with_allow_special(call: Call) -> None:
    marks = ["<|user|>", "<|a,b|>"]
    call("tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "tokenizer", "--special", *marks)
    text = "<|user|>Tom<|a,b|>"
    ids = call("tokenizer", "encode", text)[1].split()
    assert not {"298", "299"} & set(ids)
    assert call("tokenizer", "decode", *ids)[1] == f"{text}\n"
    asked = call("tokenizer", "encode", text, "--allow-special")[1].split()
    assert (asked[0], asked[-1]) == ("298", "299")
    assert call("tokenizer", "encode", "Tom")[1].split() == asked[1:-1]


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (["<s>"], "'<s>' exists already"),
        (["<0x41>"], "'<0x41>' exists already"),
        (["<|a|>", "<|a|>"], "'<|a|>' exists already"),
        (["a b"], "'a b' should be 2 to 64 printable characters"),
        (["x"], "'x' should be 2 to 64 printable characters"),
        ([f"<{number}>" for number in range(60)], "--vocab-size is 300; it can be 320 to"),
    ],
)
def test_pieces_that_cannot_be_reserved_are_named(marks: list[str], message: str, call: Call) -> None:
    result = call("tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "tokenizer", "--special", *marks)
    assert message in one_error(result, 2)
    assert not Path("tokenizer").exists()


def test_skipped_files_of_a_folder_give_one_note(call_tinyllm: Call, tokenizer_file: Path) -> None:
    Path("texts").mkdir()
    for number in range(30):
        Path(f"texts/{number}.txt").write_text(f"Once upon a time the fox saw {number} balls.", encoding="utf-8")
    Path("texts/cover.png").write_bytes(b"\x89PNG")
    Path("texts/more.csv").write_text("id,text\n1,the bear\n", encoding="utf-8")
    note = "skipped 1 file (texts/cover.png): of a folder only files that end in .txt, .md"
    for command in (
        ("prepare", "texts", "--tokenizer", tokenizer_file, "-o", "shards"),
        ("tokenizer", "train", "texts", "--vocab-size", "290", "-o", "tokenizer"),
        ("tokenizer", "count", "texts", "--tokenizer", tokenizer_file),
    ):
        code, _, err = call_tinyllm(*command)
        assert (code, err.count(note)) == (0, 1), err
    code, _, err = call_tinyllm("train", "--data", "texts", "--out", "run")
    assert (code, err.count("\n")) == (1, 1)
    assert "run prepare first: tinyllm prepare texts --tokenizer tokenizer -o texts-shards" in err


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_prepare_refuses_a_pipe(tokenizer_file: Path, tmp_path: Path, call_tinyllm: Call) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    code, _, err = call_tinyllm("prepare", tmp_path / "pipe.txt", "--tokenizer", tokenizer_file, "-o", "shards")
    assert (code, err.count("\n")) == (2, 1)
    assert "pipe.txt does not allow; save its text to a file" in err
