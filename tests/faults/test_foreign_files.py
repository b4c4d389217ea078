"""Foreign files stay unchanged: every command leaves foreign names around its inputs and outputs as they are.

The commands run in a copy of one small project. Reading commands must leave the whole project as it was; writing
commands must leave everything that they were not asked to write. Then writers are killed after a random change on
the disk and run again, so that crash recovery meets the same foreign files.
"""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import trials
from faults.foreign_files import picture, plant, plant_inside_run
from tinyllm import storage

INPUTS = ["stories.txt", "tok", "shards", "run", "model", "model.bin", "model.gguf", "labelled.txt", "classifier"]
READERS: dict[str, list[str]] = {
    "info of a model": ["info", "model"],
    "info of a run": ["info", "run"],
    "info of a file": ["info", "model.bin"],
    "doctor of a run": ["doctor", "run"],
    "doctor of shards": ["doctor", "shards", "--trial-seconds", "0", "--config", "tiny.toml"],
    "doctor of a model": ["doctor", "model"],
    "doctor of a tokenizer": ["doctor", "tok"],
    "generate": ["generate", "model", "Once", "--max-new-tokens", "3"],
    "generate from a run": ["generate", "run", "Once", "--max-new-tokens", "3"],
    "generate from GGUF": ["generate", "model.gguf", "Once", "--max-new-tokens", "3"],
    "tokenizer encode": ["tokenizer", "encode", "Once upon", "--tokenizer", "tok"],
    "tokenizer decode": ["tokenizer", "decode", "5", "6", "--tokenizer", "tok"],
    "tokenizer count": ["tokenizer", "count", "stories.txt", "--tokenizer", "tok"],
    "data inspect": ["data", "inspect", "shards"],
    "prepare, up to date": ["prepare", "stories.txt", "--tokenizer", "tok", "-o", "shards"],
    "classify predict": ["classify", "predict", "classifier", "labelled.txt"],
}
TRAIN = ["train", "--data", "shards", "--config", "tiny.toml"]
CLASSIFY = ["classify", "train", "model", "--train", "labelled.txt", "--dev", "labelled.txt", "--epochs", "1"]
WRITERS: dict[str, tuple[list[str], str]] = {
    "data storybook": (["data", "storybook", "--stories", "3", "-o", "new.txt"], "new.txt"),
    "tokenizer train": (["tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "new"], "new"),
    "prepare": (["prepare", "stories.txt", "--tokenizer", "tok", "-o", "new", "--workers", "1"], "new"),
    "prepare over shards": (
        ["prepare", "stories.txt", "--tokenizer", "tok", "-o", "shards", "--append-eos", "--overwrite"],
        "shards",
    ),
    "train": ([*TRAIN, "--out", "new", "--resume", "auto"], "new"),
    "train on": ([*TRAIN, "--out", "run", "--resume", "auto", "--steps", "9"], "run"),
    "import": (["import", "model.bin", "--tokenizer", "tok", "-o", "new"], "new"),
    "import over a model": (["import", "model.bin", "--tokenizer", "tok", "-o", "model", "--overwrite"], "model"),
    "export to safetensors": (["export", "model", "--to", "safetensors", "-o", "new"], "new"),
    "export to gguf": (["export", "model", "--to", "gguf", "-o", "new.gguf"], "new.gguf"),
    "export over gguf": (["export", "model", "--to", "gguf", "-o", "model.gguf", "--overwrite"], "model.gguf"),
    "export to pt": (["export", "model", "--to", "pt", "-o", "sub/new.pt"], "sub"),
    "classify train": ([*CLASSIFY, "-o", "new"], "new"),
    "classify predict": (["classify", "predict", "classifier", "labelled.txt", "-o", "new.txt"], "new.txt"),
}


@pytest.fixture(scope="module")
def project(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one input of each kind that commands read."""
    folder = tmp_path_factory.mktemp("project")
    lines = [f"Once upon a time the {animal} number {i} saw a ball." for i in range(30) for animal in ("fox", "owl")]
    (folder / "stories.txt").write_text("\n<|endoftext|>\n".join(lines))
    (folder / "labelled.txt").write_text("".join(f"{i % 2} ||| {line}\n" for i, line in enumerate(lines[:12])))
    (folder / "tiny.toml").write_text(trials.CONFIG)
    shards = ["prepare", "stories.txt", "--tokenizer", "tok", "-o", "shards"]
    for command in (
        ["tokenizer", "train", "stories.txt", "--vocab-size", "300", "-o", "tok"],
        shards,
        [*TRAIN, "--out", "run"],
        ["export", "run", "--to", "safetensors", "-o", "model"],
        ["export", "model", "--to", "llama2c", "-o", "model.bin"],
        ["export", "model", "--to", "gguf", "-o", "model.gguf"],
        [*CLASSIFY, "-o", "classifier"],
    ):
        trial = trials.Trial(folder.with_name("setup.txt"), run_in, folder, command)
        assert trial.end() == 0, trial.text()
    return folder


def run_in(folder: Path, command: list[str]) -> None:
    """Runs in a child: a command in the given folder."""
    os.chdir(folder)
    trials.command(*command)


def die_in(folder: Path, num_changes: int, command: list[str]) -> None:
    """Runs in a child: the command, killed after the given number of changes on disk."""
    left = [num_changes]

    def kill(operation: str, path: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    storage.disk.after_operation = kill
    run_in(folder, command)


def copy_with_foreign_files(project: Path, place: Path, number: random.Random) -> tuple[Path, dict[Path, object]]:
    """A copy of the project with foreign files, and their snapshots."""
    shutil.copytree(project, place, symlinks=True)
    planted = plant(place, [*INPUTS, "new", "new.txt", "new.gguf", "sub"], number)
    planted += plant_inside_run(place / "run", number)
    planted += [path for path in place.glob("**/outside-*") if path.is_file()]
    return place, {path: picture(path) for path in planted}


def assert_untouched(pictures: dict[Path, object], story: str) -> None:
    for path, before in pictures.items():
        assert os.path.lexists(path), f"{story}: {path} is gone"
        assert picture(path) == before, f"{story}: {path} has changed"


@pytest.mark.promise("15 reading commands change nothing at all", fast=1, full=20)
def test_readers_change_nothing(count: int, tell: Callable[[str], None], project: Path, tmp_path: Path) -> None:
    num_files = 0
    for index in range(count):
        place, pictures = copy_with_foreign_files(project, tmp_path / f"r{index}", random.Random(index))
        before = picture(place)
        for story, command in READERS.items():
            trial = trials.Trial(tmp_path / "out.txt", run_in, place, command)
            # doctor exits with 1 if it finds damage; no other command may fail.
            assert trial.end() in ((0, 1) if command[0] == "doctor" else (0,)), f"{story}: {trial.text()}"
            assert picture(place) == before, f"{story} changed something"
        num_files += len(pictures)
    tell(f"{len(READERS)} commands x {count}, {num_files} foreign files: the whole project byte for byte the same")


@pytest.mark.promise("16 writing commands leave foreign files alone", fast=1, full=20)
def test_writers_leave_foreign_files_alone(
    count: int, tell: Callable[[str], None], project: Path, tmp_path: Path
) -> None:
    num_files = 0
    for index in range(count):
        for story, (command, _) in WRITERS.items():
            place, pictures = copy_with_foreign_files(project, tmp_path / "place", random.Random(1000 + index))
            trial = trials.Trial(tmp_path / "out.txt", run_in, place, command)
            assert trial.end() == 0, f"{story}: {trial.text()}"
            assert_untouched(pictures, story)
            num_files += len(pictures)
            shutil.rmtree(place)
    tell(f"{len(WRITERS)} commands x {count}, {num_files} foreign files: byte for byte the same")


@pytest.mark.promise("16 killed writers, run again, leave foreign files alone", fast=1, full=20)
def test_recovery_leaves_foreign_files_alone(
    count: int, tell: Callable[[str], None], project: Path, tmp_path: Path
) -> None:
    num_files = killed = 0
    for index in range(count):
        for story, (command, output) in WRITERS.items():
            number = random.Random(2000 + index)
            place, pictures = copy_with_foreign_files(project, tmp_path / "place", number)
            code = trials.Trial(tmp_path / "out.txt", die_in, place, number.randrange(1, 20), command).end()
            assert code in (0, -signal.SIGKILL)
            killed += code != 0
            assert_untouched(pictures, f"{story}, killed")
            if not (place / output).exists() or "--overwrite" in command or "--resume" in command:
                again = trials.Trial(tmp_path / "again.txt", run_in, place, command)
                assert again.end() == 0, f"{story}, again: {again.text()}"
                assert_untouched(pictures, f"{story}, again")
            num_files += len(pictures)
            shutil.rmtree(place)
    tell(f"{killed} killed and run again, {num_files} foreign files: byte for byte the same")
