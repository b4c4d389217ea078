"""Outputs: existing ones are refused, --overwrite replaces only its own kind, links are followed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm import storage
from tinyllm.cli.app import main

Call = Callable[..., tuple[int, str]]
STORIES = ["data", "storybook", "--stories", "2"]


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_model_dir: Callable[..., Path],
) -> Call:
    """Runs a command in a folder with a model, texts and a tokenizer; returns exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    make_model_dir("model")
    lines = [f"Once upon a time the fox number {i} saw a red ball." for i in range(40)]
    Path("stories.txt").write_text("\n<|endoftext|>\n".join(lines))
    Path("labelled.txt").write_text("".join(f"{i % 2} ||| {line}\n" for i, line in enumerate(lines[:8])))

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().err

    return run


OUTPUTS = {
    "storybook": [*STORIES, "-o", "OUT.txt"],
    "tokenizer": ["tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "OUT"],
    "shards": ["prepare", "stories.txt", "--tokenizer", "model", "-o", "OUT"],
    "import": ["import", "model", "-o", "OUT"],
    "gguf": ["export", "model", "--to", "gguf", "-o", "OUT.gguf"],
    "llama2c": ["export", "model", "--to", "llama2c", "-o", "OUT.bin"],
    "pt": ["export", "model", "--to", "pt", "-o", "OUT.pt"],
    "directory": ["export", "model", "--to", "safetensors", "-o", "OUT"],
    "classifier": [
        *["classify", "train", "model", "--train", "labelled.txt", "--dev", "labelled.txt", "--epochs", "1"],
        *["-o", "OUT"],
    ],
}


def named(command: list[str], name: str) -> tuple[list[str], str]:
    """The command with another output, and the path of that output."""
    words = [word.replace("OUT", name) for word in command]
    return words, words[-1]


@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS)
def test_an_existing_output_is_refused_without_overwrite(call: Call, command: list[str]) -> None:
    words, output = named(command, "new")
    assert call(*words)[0] == 0
    before = storage_state(Path(output))
    if command[0] == "prepare":
        words = [*words, "--append-eos"]  # Equal shards are up to date.
    code, err = call(*words)
    assert (code, "exists already" in err, "--overwrite" in err) == (1, True, True)
    assert storage_state(Path(output)) == before
    assert call(*words, "--overwrite")[0] == 0
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS)
def test_overwrite_replaces_only_its_own_kind(call: Call, command: list[str]) -> None:
    words, output = named(command, "precious")
    precious = b"\x80\x81 my notes in no format of tinyllm's\n"
    Path(output).write_bytes(precious)
    code, err = call(*words, "--overwrite")
    assert code == 1, err
    assert "will not replace" in err
    assert Path(output).read_bytes() == precious


@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_is_a_link_is_written_through(call: Call, command: list[str]) -> None:
    words, output = named(command, "link")
    Path("real").mkdir()
    target = Path("real") / output
    Path(output).symlink_to(target)
    code, err = call(*words)
    assert code == 0, err
    assert Path(output).is_symlink()
    assert target.exists()
    assert not any(path.name.startswith(".") for folder in (Path(), Path("real")) for path in folder.iterdir())


def test_a_home_folder_in_an_option_is_expanded(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert call(*STORIES, "-o=~/a.txt")[0] == 0
    assert call(*STORIES, "--output=~/b.txt")[0] == 0
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["a.txt", "b.txt"]
    assert not Path("~").exists()


def test_an_unknown_users_home_is_a_plain_name(call: Call) -> None:
    assert call(*STORIES, "-o=~nobody-of-that-name/a.txt")[0] == 0
    assert Path("~nobody-of-that-name/a.txt").is_file()


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "model", "checkpoints", "loss.svg", ".lock"])
def test_a_run_does_not_start_in_a_folder_with_other_files(call: Call, tiny_shards: Path, name: str) -> None:
    path = Path("mine") / name
    path.parent.mkdir()
    if "." in name:
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "diary.txt").write_text("mine")
    code, err = call("train", "--data", str(tiny_shards), "--out", "mine", "--recipe", "stories260k", "--steps", "1")
    assert code != 0
    assert f"mine/{name}" in err
    assert [inner.name for inner in Path("mine").iterdir()] == [name]
    assert (path if path.is_file() else path / "diary.txt").read_text() == "mine"


def test_a_run_does_not_begin_in_a_model(call: Call, tiny_shards: Path) -> None:
    before = sorted(path.name for path in Path("model").iterdir())
    code, err = call("train", "--data", str(tiny_shards), "--out", "model", "--recipe", "stories260k", "--steps", "1")
    assert (code, "so it is no run" in err) == (2, True)
    assert sorted(path.name for path in Path("model").iterdir()) == before


def test_a_demo_follows_a_link(call: Call) -> None:
    Path("loop").symlink_to("loop")
    code, err = call("demo", "-o", "loop")
    assert (code, "leads nowhere" in err) == (1, True)


def storage_state(path: Path) -> object:
    """The content of a file, or of a directory's manifest."""
    return path.read_bytes() if path.is_file() else storage.read_manifest(path)
