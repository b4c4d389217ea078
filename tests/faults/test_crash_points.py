"""Crash points: the process stops after each change on disk in turn, and the output is either old or new.

Two kinds of stop: a killed process, whose writes all reach the disk, and a power cut, which empties every unsynced
file.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from faults import trials
from outputs import contents
from tinyllm import storage
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import load_model, save_model
from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.training.builder import build_trainer
from tinyllm.training.checkpoint import checkpoint_path, newest_whole_checkpoint, save_checkpoint
from tinyllm.training.run_dir import clear_away_leftovers
from training_runs import Listener, make_config

STOPPED = 77
Operation = Callable[[], None]


class StopAfter:
    """A hook that stops the process after the given number of changes; a power cut loses unsynced files."""

    def __init__(self, num_changes: int, power_cut: bool) -> None:
        self.left, self.power_cut = num_changes, power_cut
        self.volatile: set[Path] = set()

    def __call__(self, operation: str, path: Path) -> None:
        if operation in ("write", "append"):
            self.volatile.add(path)
        elif operation == "sync":
            self.volatile.discard(path)
        self.left -= 1
        if self.left == 0:
            for lost in self.volatile if self.power_cut else ():
                if lost.exists():
                    os.truncate(lost, 0)
            os._exit(STOPPED)


def stop_everywhere(place: Path, operation: Operation, check: Callable[[int], None], power_cut: bool) -> int:
    """Runs `operation` in a fork that stops after change 1, 2, ... until it survives; restores `place` each time."""
    before = place.with_name(place.name + ".before")
    shutil.copytree(place, before)
    for point in range(1, 1000):
        shutil.rmtree(place)
        shutil.copytree(before, place)
        child = os.fork()
        if child == 0:
            storage.disk.after_operation = StopAfter(point, power_cut)
            operation()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, STOPPED), f"change {point}: ended with {code}"
        check(point)
        if code == 0:
            shutil.rmtree(before)
            return point - 1
    raise AssertionError("no end of changes")


def saving_checkpoints(shards: Path, folder: Path, power_cut: bool) -> None:
    """Runs in a child: saves a third checkpoint, which removes the oldest, and then cleans up as `Trainer` does."""
    trainer = build_trainer(make_config(shards, 9), ShardSet.open(shards), folder / "run", reporter=Listener())
    trainer.train(resume=False, to_toml=lambda config: "")
    checkpoints = folder / "run" / "checkpoints"
    newest = load_file(checkpoint_path(checkpoints, 9) / "model.safetensors")
    moments = load_file(checkpoint_path(checkpoints, 9) / "optimizer.safetensors")
    trainer.state.step = 12

    def check(point: int) -> None:
        path, complaints = newest_whole_checkpoint(checkpoints)
        assert path is not None, f"change {point}: nothing loads"
        assert complaints == {}, f"change {point}: {complaints}"
        assert path.name in ("step-00000009", "step-00000012")
        for name, expected in (("model.safetensors", newest), ("optimizer.safetensors", moments)):
            found = load_file(path / name)
            assert all(torch.equal(found[key], expected[key]) for key in expected), f"change {point}: a mixture"
        clear_away_leftovers(folder / "run", trainer.directory, trainer.log.note)
        assert trials.leftovers(folder / "run") == []

    def save() -> None:
        save_checkpoint(checkpoints, trainer.state, trainer.model, trainer.updater, keep=2)

    print(stop_everywhere(checkpoints, save, check, power_cut))


def replacing_models(folder: Path, tokenizer: Tokenizer, exchange: bool, power_cut: bool) -> None:
    """Runs in a child: replaces a model directory, with and without an atomic exchange."""
    if not exchange:
        storage.disk.exchange = lambda first, second: False
    config = make_config(folder / "shards").model
    place = folder / "place"
    weights = {}
    for seed, name in ((1, "old"), (2, "new")):
        torch.manual_seed(seed)
        model = Transformer(config)
        weights[name] = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    save_model(place / "model", weights["old"], config, tokenizer, details={"which": "old"})

    def check(point: int) -> None:
        # A writer restores a directory that lost its name between two renames; a reader finds it without a writer.
        if not exchange:
            storage.remove_dead_drafts(place)
        which = storage.verify(place / "model", "model").details["which"]
        loaded = load_model(place / "model")[0].state_dict()
        assert all(torch.equal(loaded[key], weights[which][key]) for key in loaded), f"change {point}: a mixture"
        save_model(place / "model", weights["new"], config, tokenizer, details={"which": "new"})
        assert [path.name for path in place.iterdir()] == ["model"], f"change {point}"

    def save() -> None:
        save_model(place / "model", weights["new"], config, tokenizer, details={"which": "new"})

    print(stop_everywhere(place, save, check, power_cut))


def preparing_shards(folder: Path, tokenizer: Tokenizer, power_cut: bool) -> None:
    """Runs in a child: `prepare` up to a stop and then again gives the bytes of an uninterrupted one."""
    (folder / "corpus.txt").write_text("\n".join(f"The {n}th fox saw a red ball." for n in range(60)))

    def make(output: Path) -> None:
        prepare([folder / "corpus.txt"], tokenizer, output, documents="line", num_workers=1, shard_tokens=400)

    make(folder / "expected")
    expected = contents(folder / "expected")
    place = folder / "place"
    place.mkdir()

    def check(point: int) -> None:
        if (place / "shards").exists():
            storage.verify(place / "shards", "shards")
        make(place / "shards")
        assert contents(place / "shards") == expected, f"change {point}"
        assert sorted(path.name for path in place.iterdir()) == ["shards"], f"change {point}"

    print(stop_everywhere(place, lambda: make(place / "shards"), check, power_cut))


def replacing_a_file(folder: Path, power_cut: bool) -> None:
    """Runs in a child: replaces a file."""
    place = folder / "place"
    place.mkdir()
    storage.write_file(place / "f", "old")

    def check(point: int) -> None:
        assert (place / "f").read_text() in ("old", "new"), f"change {point}"
        storage.remove_dead_drafts(place)
        assert [path.name for path in place.iterdir()] == ["f"]

    print(stop_everywhere(place, lambda: storage.write_file(place / "f", "new"), check, power_cut))


@pytest.mark.promise("2 stopped after every change of a save: old or new, whole", fast=1, full=2)
def test_every_crash_point_leaves_the_old_or_the_new(
    count: int, tell: Callable[[str], None], tiny_shards: Path, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    seen = []
    for power_cut in (True, False)[:count]:
        ending = "power" if power_cut else "kill"
        scenes: dict[str, tuple[Callable[..., None], list[object]]] = {
            "checkpoint": (saving_checkpoints, [tiny_shards]),
            "model": (replacing_models, []),
            "model without exchange": (replacing_models, []),
            "shards": (preparing_shards, []),
            "file": (replacing_a_file, []),
        }
        for name, (scene, before) in scenes.items():
            folder = tmp_path / f"{name} {ending}"
            folder.mkdir()
            (folder / "shards").symlink_to(tiny_shards)
            arguments = [*before, folder]
            if scene in (replacing_models, preparing_shards):
                arguments.append(tiny_tokenizer.model_proto)
            if scene is replacing_models:
                arguments.append(name == "model")
            trial = trials.Trial(tmp_path / f"{name} {ending}.txt", in_child, scene, arguments, power_cut)
            assert trial.end() == 0, trial.text()
            seen.append(f"{name} {trial.text().split()[-1]}")
    tell(f"crash points: {', '.join(seen)}; 0 that do not load, 0 mixtures")


def in_child(scene: Callable[..., None], arguments: list[object], power_cut: bool) -> None:
    """Calls a scene; the tokenizer is passed as bytes.

    `StopAfter` simulates the power cut, so the disk need not wait: a sync does nothing here.
    """
    os.fsync = lambda fd: None
    made = [Tokenizer.from_bytes(a, "tiny.model") if isinstance(a, bytes) else a for a in arguments]
    scene(*made, power_cut)
