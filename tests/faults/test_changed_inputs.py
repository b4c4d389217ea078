"""Inputs that change between a run and its resume: refused before the first step, or allowed with a note."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyllm import storage
from tinyllm.config import Config
from tinyllm.errors import ArtifactError, MismatchError, TinyllmError
from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model
from tinyllm.training import inputs
from tinyllm.training.builder import build_trainer
from tinyllm.training.checkpoint import newest_whole_checkpoint
from training_runs import Listener, losses, make_config

REFUSED: dict[str, dict[str, dict[str, Any]]] = {
    "model.num_layers": {"model": {"num_layers": 1}},
    "model.hidden_size": {"model": {"hidden_size": 32}},
    "model.num_kv_heads": {"model": {"num_kv_heads": 2}},
    "model.rope_theta": {"model": {"rope_theta": 500.0}},
    "model.dropout": {"model": {"dropout": 0.2}},
    "model.tie_embeddings": {"model": {"tie_embeddings": False}},
    "training.batch_size": {"training": {"batch_size": 3}},
    "training.accumulation_steps": {"training": {"accumulation_steps": 1}},
    "training.sequence_length": {"training": {"sequence_length": 8}},
    "training.seed": {"training": {"seed": 5}},
    "training.dtype": {"training": {"dtype": "bfloat16"}},
    "optimizer.beta2": {"optimizer": {"beta2": 0.9}},
    "optimizer.weight_decay": {"optimizer": {"weight_decay": 0.0}},
    "optimizer.grad_clip": {"optimizer": {"grad_clip": 0.5}},
}
NOTED: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "schedule.peak": ({"schedule": {"peak": 5e-3}}, "the learning rate follows the new schedule"),
    "schedule.num_steps": ({"schedule": {"num_steps": 12}}, "the learning rate follows the new schedule"),
    "training.eval_interval": ({"training": {"eval_interval": 2}}, "losses before and after"),
    "training.eval_batches": ({"training": {"eval_batches": 1}}, "losses before and after"),
}
LIBRARIES = {"torch": "0.0.1", "tinyllm": "0.0.0", "threads": 99, "device": "cuda:7"}


def begin(shards: Path, run: Path) -> None:
    build_trainer(make_config(shards, 3), ShardSet.open(shards), run, reporter=Listener()).train(
        resume=False, to_toml=lambda config: ""
    )


def go_on(shards: Path, run: Path, config: Config) -> Listener:
    listener = Listener()
    build_trainer(config, ShardSet.open(shards), run, reporter=listener).train(resume=True, to_toml=lambda config: "")
    return listener


def assert_refused(shards: Path, run: Path, config: Config, message: str) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(TinyllmError, match=message):
        go_on(shards, run, config)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before, "a refused run changed something"


def make_shards(folder: Path, tokenizer: Tokenizer, text: str) -> Path:
    folder.mkdir()
    (folder / "corpus.txt").write_text("\n".join(f"{text} {n}" for n in range(200)))
    return prepare([folder / "corpus.txt"], tokenizer, folder / "shards", documents="line", num_workers=1).path


@pytest.mark.promise("9 changed inputs: refused before a step, or allowed with a note", fast=24, full=24)
def test_changed_inputs_are_refused_or_noted(
    count: int,
    tell: Callable[[str], None],
    tiny_shards: Path,
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = tmp_path / "original"
    begin(tiny_shards, original)
    for name, change in REFUSED.items():
        key = {"training.seed": "seed", "training.dtype": "dtype"}.get(name, name)
        assert_refused(tiny_shards, original, make_config(tiny_shards, 3, **change), f"was made with {key} ")

    other_text = make_shards(tmp_path / "text", tiny_tokenizer, "Another text of the same tokenizer, long enough.")
    assert_refused(other_text, original, make_config(other_text, 3), "was made with shards ")
    lines = [f"Once upon a time the {n} ate a blue pear." for n in range(30)]
    other = Tokenizer.from_bytes(train_model(lines, 320), "other.model")
    other_tokenizer = make_shards(tmp_path / "tokenizer", other, "The same shape but other ids in it, long enough.")
    assert_refused(other_tokenizer, original, make_config(other_tokenizer, 3), "was made with (shards|tokenizer) ")

    for name, (change, message) in NOTED.items():
        run = tmp_path / name
        shutil.copytree(original, run)
        listener = go_on(tiny_shards, run, make_config(tiny_shards, 9, **change))
        assert any(name.partition(".")[2] in note and message in note for note in listener.notes), listener.notes
        assert len(losses(run)) >= 9
    for name, value in LIBRARIES.items():
        run = tmp_path / name
        shutil.copytree(original, run)

        def change_one(*arguments: Any, name: str = name, value: object = value) -> dict[str, Any]:
            return inputs.describe_inputs(*arguments) | {name: value}

        with monkeypatch.context() as patch:
            patch.setattr("tinyllm.training.resume.describe_inputs", change_one)
            listener = go_on(tiny_shards, run, make_config(tiny_shards, 6))
        assert any(f"{name} " in note and str(value) in note for note in listener.notes), listener.notes
    assert len(REFUSED) + 2 + len(NOTED) + len(LIBRARIES) == count
    tell(f"{len(REFUSED) + 2} refused, {len(NOTED) + len(LIBRARIES)} allowed with a note")


def test_a_checkpoint_of_another_format_gives_one_line(tiny_shards: Path, tmp_path: Path) -> None:
    """A state of a later version may have unknown fields."""
    run = tmp_path / "run"
    begin(tiny_shards, run)
    newest = run / "checkpoints" / "step-00000003"
    state = (newest / "state.json").read_text().replace('"step"', '"stage"')
    with storage.commit_directory(newest, "checkpoint") as draft:
        for name in ("model.safetensors", "optimizer.safetensors"):
            draft.write(name, (newest / name).read_bytes())
        draft.write("state.json", state)
    with pytest.raises(TinyllmError, match="no checkpoint in .* is whole"):
        go_on(tiny_shards, run, make_config(tiny_shards, 6))


def test_mismatch_is_the_error_of_a_changed_shape(tiny_shards: Path, tmp_path: Path) -> None:
    begin(tiny_shards, tmp_path / "run")
    with pytest.raises(MismatchError, match=r"restore that setting, or start a new run with another `out`"):
        go_on(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3, model={"num_layers": 1}))


@pytest.mark.promise("9 shards that become shorter under a run end it by an error", fast=1, full=20)
def test_a_shard_that_becomes_shorter_under_a_run_is_an_error(
    count: int, tell: Callable[[str], None], tiny_shards: Path, tmp_path: Path
) -> None:
    for index in range(count):
        shards, run = tmp_path / f"shards{index}", tmp_path / f"run{index}"
        shutil.copytree(tiny_shards, shards)

        def shorten(step: int, shards: Path = shards) -> None:
            if step == 4:
                for path in shards.glob("train*.bin"):
                    os.truncate(path, 2)

        trainer = build_trainer(make_config(shards, 30), ShardSet.open(shards), run, reporter=Listener(shorten))
        with pytest.raises(ArtifactError, match="became shorter while it was in use"):
            trainer.train(resume=False, to_toml=lambda config: "")
        assert newest_whole_checkpoint(run / "checkpoints")[0]
    tell(f"{count} of {count} ended with one line and a whole checkpoint")
