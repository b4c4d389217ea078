"""A run at an address while the network fails, and after it was killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from object_store import ObjectStore, needs_object_store
from tinyllm.errors import ArtifactError, UploadError
from tinyllm.storage import verify
from tinyllm.storage.remote.claims import Claim
from tinyllm.training.mirror import Mirror
from tinyllm.training.reporter import TrainingReporter
from training_runs import SMALL_RUN

pytestmark = needs_object_store


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOOK_SECONDS": 0.02, "FIRST_WAIT_SECONDS": 0.05, "LAST_TRIES": 2}.items():
        monkeypatch.setattr(f"tinyllm.training.mirror.{name}", value)
    monkeypatch.setattr("tinyllm.storage.remote.drivers.TRIES", 2)
    monkeypatch.setattr("tinyllm.storage.remote.claims.SETTLE_SECONDS", 0.0)
    if "s3fs" in sys.modules:
        monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)


class Watcher(TrainingReporter):
    """Calls `act` with each step, and keeps the notes."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self.act = act
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def step(self, record: dict[str, Any]) -> None:
        self.act(record["step"])


def wait_for(condition: Callable[[], object], wait_seconds: float = 0.02, limit_seconds: float = 120) -> None:
    """Waits until `condition` is true; one that asks the server, which is in this process, takes a longer wait."""
    end = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < end, "nothing came within the limit"
        time.sleep(wait_seconds)


def test_training_goes_on_while_uploads_fail(
    object_store: ObjectStore, tiny_shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def act(step: int) -> None:
        if step == 3:
            object_store.network.is_down = True
            wait_for(lambda: any("an upload failed" in line for line in watcher.notes))
        if step == 6:
            object_store.network.is_down = False

    watcher = Watcher(act)
    place = object_store.address("runs", "one")
    tinyllm.train(tiny_shards, place, **SMALL_RUN, schedule={"num_steps": 8}, reporter=watcher)
    failed = [line for line in watcher.notes if line.startswith("an upload failed, and is tried again while training")]
    assert len(failed) == 1
    assert not [record for record in caplog.records if record.name == "asyncio"], "a traceback for the user"
    names = object_store.names("runs", "one")
    saved = {name.split("/")[1] for name in names if name.startswith("checkpoints")}
    assert "step-00000008" in saved
    assert saved <= {"step-00000006", "step-00000008"}
    assert {"config.toml", "metrics.jsonl", "loss.svg", "model/manifest.json"} <= set(names)


@pytest.mark.slow
def test_uploads_slower_than_checkpoints_leave_some_out(object_store: ObjectStore, tiny_shards: Path) -> None:
    """A checkpoint that training has removed is still uploaded whole."""
    object_store.network.delay_seconds = 0.01
    place = object_store.address("runs", "one")
    schedule = {"num_steps": 40}

    def act(step: int) -> None:
        if step == 38:
            wait_for(lambda: any(name.endswith("manifest.json") for name in object_store.names("runs", "one")))

    watcher = Watcher(act)
    tinyllm.train(tiny_shards, place, **SMALL_RUN, schedule=schedule, reporter=watcher)
    assert not [line for line in watcher.notes if "failed" in line]
    assert "checkpoints/step-00000040/manifest.json" in object_store.names("runs", "one")


@pytest.mark.slow
def test_an_end_without_network_keeps_the_copy(object_store: ObjectStore, tiny_shards: Path) -> None:
    def act(step: int) -> None:
        object_store.network.is_down = step >= 3

    place = object_store.address("runs", "one")
    with pytest.raises(UploadError, match=r"runs/one lacks the end of the run: .*; the copy on this machine is whole"):
        tinyllm.train(tiny_shards, place, **SMALL_RUN, schedule={"num_steps": 4}, reporter=Watcher(act))
    object_store.network.is_down = False
    assert tinyllm.train(tiny_shards, place, resume=True).state.step == 4
    assert "checkpoints/step-00000004/manifest.json" in object_store.names("runs", "one")


def test_a_run_whose_claim_is_lost_uploads_nothing_more(
    object_store: ObjectStore,
    tiny_shards: Path,
    other_machine: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = object_store.address("runs", "one")
    monkeypatch.setattr("tinyllm.storage.remote.claims.REFRESH_SECONDS", 0.0)

    def act(step: int) -> None:
        if step == 5:
            with pytest.raises(ArtifactError, match="is in use by a run on"):
                Claim.take(place, "other")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tinyllm.storage.remote.claims.STALE_SECONDS", 0.0)
                Claim.take(place, "other")
            wait_for(lambda: any("nothing more is uploaded" in line for line in watcher.notes))

    watcher = Watcher(act)
    with pytest.raises(UploadError, match="is not this run's any more"):
        tinyllm.train(tiny_shards, place, **SMALL_RUN, schedule={"num_steps": 8}, reporter=watcher)
    assert not [name for name in object_store.names("runs", "one") if "step-00000008" in name]


@pytest.mark.slow
def test_a_copy_that_another_machine_outran_is_replaced(
    object_store: ObjectStore, tiny_shards: Path, other_machine: Callable[[str], Path]
) -> None:
    place = object_store.address("runs", "one")
    first = {**SMALL_RUN, "schedule": {"num_steps": 2}}
    other_machine("first")
    tinyllm.train(tiny_shards, place, **first)
    other_machine("second")
    tinyllm.train(tiny_shards, place, resume=True, schedule={"num_steps": 4})
    other_machine("first")
    watcher = Watcher(lambda step: None)
    outcome = tinyllm.train(tiny_shards, place, resume=True, schedule={"num_steps": 6}, reporter=watcher)
    assert outcome.state.step == 6
    assert any(line.startswith("going on from") and line.endswith("step 4") for line in watcher.notes)


def test_a_checkpoint_that_training_removes_during_the_upload_of_logs_arrives_whole(
    object_store: ObjectStore, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs that take longer than a checkpoint lives would otherwise keep every checkpoint away."""
    run, place = tmp_path / "run", object_store.address("runs", "one")
    tinyllm.train(tiny_shards, run, **SMALL_RUN, schedule={"num_steps": 4})
    mirror = Mirror(run, place, Claim.take(place, "this copy"), lambda line: None)
    upload_logs = mirror._upload_logs

    def upload_slowly() -> None:
        upload_logs()
        shutil.rmtree(run / "checkpoints" / "step-00000004")

    monkeypatch.setattr(mirror, "_upload_logs", upload_slowly)
    mirror._upload(is_last=False)
    assert "checkpoints/step-00000004/manifest.json" in object_store.names("runs", "one")
    verify(object_store.get(tmp_path / "found", "runs", "one") / "checkpoints" / "step-00000004", "checkpoint")


def test_the_uploads_of_a_killed_process_stop_at_once() -> None:
    """A second Ctrl-C ends the process without waiting for the network."""
    assert Mirror.__exit__(object.__new__(Mirror), SystemExit, SystemExit(130), None) is None  # type: ignore[func-returns-value]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_killed_run_leaves_whole_checkpoints_alone(
    seed: int,
    object_store: ObjectStore,
    tiny_shards: Path,
    tmp_path: Path,
    other_machine: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGKILL at a random moment of slow uploads: what has a manifest verifies, and another machine goes on from it."""
    place = object_store.address("runs", "one")
    object_store.network.delay_seconds = 0.003
    program = (
        "import json, sys, tinyllm\nfrom tinyllm.training import mirror\nmirror.LOOK_SECONDS = 0.02\n"
        "settings = json.loads(sys.argv[3])\n"
        "tinyllm.train(sys.argv[1], sys.argv[2], schedule={'num_steps': 100_000}, **settings)\n"
    )
    command = [sys.executable, "-c", program, str(tiny_shards), place, json.dumps(SMALL_RUN)]
    process = subprocess.Popen(command, env={**os.environ, **object_store.environment})
    try:
        # A busy machine may take half a minute to import torch, and each upload waits for the server's turn.
        wait_for(lambda: any(name.endswith("manifest.json") for name in object_store.names("runs", "one")), 0.5, 300)
        time.sleep(random.Random(seed).uniform(0, 3))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    object_store.network.mend()
    found = object_store.get(tmp_path / "found", "runs", "one")
    whole = [path.parent for path in found.glob("*/*/manifest.json")]
    for folder in whole:
        verify(folder, "checkpoint")
    newest = max(int(folder.name.removeprefix("step-")) for folder in whole)
    other_machine("second")
    with pytest.raises(ArtifactError, match="is in use by a run on"):
        tinyllm.train(tiny_shards, place, resume=True)
    monkeypatch.setattr("tinyllm.storage.remote.claims.STALE_SECONDS", 0.0)
    outcome = tinyllm.train(tiny_shards, place, resume=True, schedule={"num_steps": newest + 2})
    assert outcome.state.step == newest + 2
    again = object_store.get(tmp_path / "again", "runs", "one")
    folders = sorted((again / "checkpoints").iterdir())
    assert folders[-1].name == f"step-{newest + 2:08d}"
    for folder in (*folders, again / "model"):
        verify(folder)
