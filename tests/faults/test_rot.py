"""Damaged files, cut off anywhere or with one bit flipped, are detected before use and named."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from faults import trials
from outputs import contents
from tinyllm import storage
from tinyllm.errors import TinyllmError
from tinyllm.model_dir import load_model
from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_tokenizer
from tinyllm.training.builder import build_trainer
from tinyllm.training.checkpoint import newest_whole_checkpoint
from training_runs import Listener, losses, make_config

CHECKPOINT_FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "state.json")
Damage = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, number: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[number.randrange(len(content))] ^= 1 << number.randrange(8)
    return bytes(damaged)


def cut(content: bytes, number: random.Random) -> bytes:
    return content[: number.randrange(len(content))]


def damage_each(
    files: list[Path], count: int, damage: Damage, use: Callable[[], object], whole: Callable[[], object]
) -> int:
    """Damages the files in turn, `count` times in total; each time `use` must refuse and name the file."""
    number = random.Random(count)
    for index in range(count):
        file = files[index % len(files)]
        content = file.read_bytes()
        file.write_bytes(damage(content, number))
        with pytest.raises(TinyllmError) as refused:
            use()
        assert str(file) in str(refused.value) or str(file.with_suffix("")) in str(refused.value), refused.value
        file.write_bytes(content)
    whole()
    return count


def use_checkpoint(run: Path) -> None:
    _, complaints = newest_whole_checkpoint(run / "checkpoints")
    for complaint in complaints.values():
        raise TinyllmError(complaint)


@pytest.mark.promise("5 a flipped bit is detected before use, the file named", fast=100, full=1000)
def test_flipped_bits(count: int, tell: Callable[[str], None], places: dict[str, Path]) -> None:
    tell(rot_everywhere(places, count, flip))


@pytest.mark.promise("5 a file cut off is detected before use, the file named", fast=20, full=100)
def test_cuts(count: int, tell: Callable[[str], None], places: dict[str, Path]) -> None:
    tell(rot_everywhere(places, count, cut))


@pytest.fixture
def places(tiny_shards: Path, whole: Path, tiny_tokenizer: Tokenizer, tmp_path: Path) -> dict[str, Path]:
    """Copies of a run, shards and a tokenizer, to be damaged."""
    shutil.copytree(tiny_shards, tmp_path / "shards")
    shutil.copytree(whole, tmp_path / "run")
    train_tokenizer([f"Story {n} of a red fox." for n in range(50)], 290, tmp_path / "tokenizer")
    return {name: tmp_path / name for name in ("shards", "run", "tokenizer")}


def rot_everywhere(places: dict[str, Path], count: int, damage: Damage) -> str:
    """Damages each kind of file a share of `count` times; returns the numbers."""
    shards, run = places["shards"], places["run"]
    newest = run / "checkpoints" / f"step-{trials.NUM_STEPS:08d}"
    in_shards = [path for path in sorted(shards.iterdir()) if path.name != storage.STAMPS_NAME]
    assert {path.suffix for path in in_shards} == {".bin", ".idx", ".json", ".model"}
    in_model = sorted((run / "model").iterdir())
    in_tokenizer = [places["tokenizer"] / name for name in ("manifest.json", "tokenizer.model")]
    share = count // 4

    def open_shards() -> None:
        ShardSet.open(shards)

    def read_model() -> None:
        load_model(run / "model")

    def read_tokenizer() -> None:
        Tokenizer.load(places["tokenizer"])

    def read_checkpoint() -> None:
        use_checkpoint(run)

    numbers = {
        "shards": damage_each(in_shards, share, damage, open_shards, open_shards),
        "checkpoint": damage_each(
            [newest / name for name in CHECKPOINT_FILES], share, damage, read_checkpoint, read_checkpoint
        ),
        "model": damage_each(in_model, share, damage, read_model, read_model),
        "tokenizer": damage_each(in_tokenizer, count - 3 * share, damage, read_tokenizer, read_tokenizer),
    }
    return ", ".join(f"{number} {name}" for name, number in numbers.items()) + ": all noticed"


@pytest.mark.promise("5 resume falls back to the newest whole checkpoint with a note", fast=4, full=40)
def test_resume_falls_back(
    count: int, tell: Callable[[str], None], tiny_shards: Path, whole: Path, tmp_path: Path
) -> None:
    number = random.Random(count)
    config = make_config(
        tiny_shards,
        trials.NUM_STEPS,
        model={"dropout": 0.1},
        training={"checkpoint_interval": trials.INTERVAL, "eval_interval": 4},
    )
    for index in range(count):
        run = tmp_path / f"run{index}"
        shutil.copytree(whole, run)
        newest = run / "checkpoints" / f"step-{trials.NUM_STEPS:08d}"
        file = newest / CHECKPOINT_FILES[index % len(CHECKPOINT_FILES)]
        file.write_bytes((flip, cut)[index // 4 % 2](file.read_bytes(), number))
        in_model = sorted((run / "model").iterdir())
        model_file = in_model[index % len(in_model)]
        model_file.write_bytes(flip(model_file.read_bytes(), number))
        listener = Listener()
        build_trainer(config, ShardSet.open(tiny_shards), run, reporter=listener).train(
            resume=True, to_toml=lambda config: ""
        )
        assert any(f"{newest.name} is passed over" in note and str(file) in note for note in listener.notes)
        assert any(str(model_file) in note and "model.damaged" in note for note in listener.notes)
        assert newest.with_name(newest.name + ".damaged").is_dir()
        assert losses(run) == losses(whole)
        trials.assert_same_tensors(
            newest / "model.safetensors", whole / "checkpoints" / newest.name / "model.safetensors"
        )
        storage.verify(run / "model", "model")
    tell(f"{count} of {count} resumed from an earlier checkpoint and ended the same")


@pytest.mark.promise(
    "5 prepare's own shards are not read again; touched files, copies and --verify full are", fast=1, full=1
)
def test_only_untouched_shards_are_trusted(
    count: int, tell: Callable[[str], None], tiny_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(f"The {n}th fox saw a red ball." for n in range(60)))
    shards = prepare([tmp_path / "corpus.txt"], tiny_tokenizer, tmp_path / "shards", documents="line").path
    num_files = len(storage.read_manifest(shards).files)
    read: list[str] = []
    sha256_of = storage.sha256_of

    def sha256_watched(path: Path) -> str:
        read.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(storage.entries, "sha256_of", sha256_watched)
    before = contents(shards)

    def files_read(path: Path, verify: Literal["changed", "full"] = "changed") -> list[str]:
        read.clear()
        ShardSet.open(path, verify=verify)
        return list(read)

    assert files_read(shards) == []
    assert len(files_read(shards, "full")) == num_files
    (shards / "train-00000.bin").touch()
    assert files_read(shards) == files_read(shards) == ["train-00000.bin"]
    shutil.copytree(shards, tmp_path / "copy")
    assert len(files_read(tmp_path / "copy")) == num_files
    assert contents(shards) == before, "reading changed something"
    tell(f"0 of {num_files} files read at a start, 1 after a touch, {num_files} of a copy and with full")
