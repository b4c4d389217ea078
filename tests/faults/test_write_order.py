"""The order of a save on disk: content, its fsync, manifest, its fsync, directory, rename, parent.

Observed by the hook of `storage`, and by the system calls if strace is available.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import trials
from tinyllm import storage
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.checkpoint import save_checkpoint
from tinyllm.training.loop import Trainer
from training_runs import Listener, make_config

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
MANIFEST = "manifest.json"
Event = tuple[str, Path]
_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) = (\d+)")
_PLACE = re.compile(r"^\d+<([^>]*)>")


def assert_order(events: list[Event], final: Path) -> None:
    """Asserts the order of one save's events, `(operation, path)` with the operations write, sync and rename."""
    draft = draft_of(events, final)

    def first(operation: str, path: Path) -> int:
        assert (operation, path) in events, f"no {operation} of {path}: {events}"
        return events.index((operation, path))

    def last(operation: str, path: Path) -> int:
        return len(events) - 1 - events[::-1].index((operation, path))

    manifest_begins = first("write", draft / MANIFEST)
    for name in FILES:
        assert last("write", draft / name) < first("sync", draft / name) < manifest_begins
    ends = [
        last("write", draft / MANIFEST),
        first("sync", draft / MANIFEST),
        first("sync", draft),
        first("rename", final),
        first("sync", final.parent),
    ]
    assert ends == sorted(ends)
    assert not any(operation == "write" and draft in path.parents for operation, path in events[ends[1] :])


def draft_of(events: list[Event], final: Path) -> Path:
    """The content folder written last before `final` got its name."""
    end = events.index(("rename", final))
    written = [path for operation, path in events[:end] if operation == "write" and path.name == MANIFEST]
    return written[-1].parent


def save_often(shards: Path, run: Path, saves: int, go: Path | None) -> Trainer:
    """Trains one step and saves it as many steps; first waits for the file `go`, if given."""
    trainer = build_trainer(make_config(shards, 1), ShardSet.open(shards), run, reporter=Listener())
    trainer.train(resume=False, to_toml=lambda config: "")
    while go is not None and not go.exists():
        time.sleep(0.01)
    for step in range(100, 100 + saves):
        trainer.state.step = step
        save_checkpoint(run / "checkpoints", trainer.state, trainer.model, trainer.updater, keep=2)
    return trainer


def events_of(events: list[Event], final: Path) -> list[Event]:
    draft = draft_of(events, final)
    begin = events.index(next(event for event in events if draft in event[1].parents))
    end = events.index(("rename", final))
    return events[begin : end + 2]


@pytest.mark.promise("3 write, fsync, manifest, rename in order (hook)", fast=5, full=50)
def test_the_hook_sees_the_documented_order(
    count: int, tell: Callable[[str], None], tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    monkeypatch.setattr(
        storage.disk, "after_operation", lambda operation, path: events.append((operation.split()[0], path))
    )
    save_often(tiny_shards, tmp_path / "run", count, None)
    for step in range(100, 100 + count):
        final = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        assert_order(events_of(events, final), final)
    tell(f"{count} of {count} saves in order")


def parse_strace(text: str) -> list[Event]:
    """The events in a log of `strace -f -y`; a file renamed inside a draft keeps the events of its first name."""
    events: list[Event] = []
    for line in text.splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        name, arguments, _ = match.groups()
        place = _PLACE.match(arguments)
        if name in ("write", "pwrite64", "writev", "ftruncate", "copy_file_range") and place:
            events.append(("write", Path(place[1])))
        elif name in ("fsync", "fdatasync") and place:
            events.append(("sync", Path(place[1])))
        elif name.startswith("rename"):
            source, target = (Path(path) for path in re.findall(r'"([^"]*)"', arguments))
            if source.parent == target.parent and source.name.startswith(".tmp"):
                # safetensors first writes to a temporary name.
                events = [(operation, target if path == source else path) for operation, path in events]
            else:
                events.append(("rename", target))
    return events


@pytest.mark.promise("3 write, fsync, manifest, rename in order (strace)", fast=5, full=50)
def test_the_system_calls_are_in_the_documented_order(
    count: int, tell: Callable[[str], None], tiny_shards: Path, tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log, go = tmp_path / "strace.txt", tmp_path / "go"
    trial = trials.Trial(tmp_path / "out.txt", save_often, tiny_shards, tmp_path / "run", count, go)
    calls = "write,pwrite64,writev,ftruncate,copy_file_range,fsync,fdatasync,rename,renameat,renameat2"
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-s", "0", "-e", f"trace={calls}", "-o", str(log), "-p", str(trial.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    go.touch()
    code = trial.end()
    tracer.communicate(timeout=60)
    if "attached" not in attached:
        pytest.skip(f"strace may not watch here: {attached.strip()}")
    assert code == 0, trial.text()
    events = parse_strace(log.read_text())
    for step in range(100, 100 + count):
        final = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        assert_order(events_of(events, final), final)
    assert storage.drafts_in(tmp_path / "run" / "checkpoints") == []
    tell(f"{count} of {count} saves in order")
