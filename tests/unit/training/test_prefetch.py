"""The input of the next update is read while the current one is computed, and nothing else changes."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tinyllm.errors import ArtifactError
from tinyllm.shards.arrays import ShardArrays
from tinyllm.shards.encoding import Tokens
from tinyllm.training.next_token import NextToken
from tinyllm.training.prefetch import Prefetcher
from training_runs import losses, make_config, train

PATIENCE_SECONDS = 30.0
"""Longest wait for another thread; only a failing test waits."""


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "input"]


def test_the_next_step_is_read_while_the_caller_works() -> None:
    caller_has_a_step, next_is_read = threading.Event(), threading.Event()

    def read(step: int) -> int:
        if step == 1:
            assert caller_has_a_step.wait(PATIENCE_SECONDS)
            next_is_read.set()
        return step

    steps = Prefetcher(read, num_steps=2)
    assert steps.take(0) == 0
    caller_has_a_step.set()
    assert next_is_read.wait(PATIENCE_SECONDS)
    assert steps.take(1) == 1


def test_each_step_is_read_once_one_in_advance_and_none_after_the_last() -> None:
    read: list[int] = []
    steps = Prefetcher(lambda step: read.append(step) or step, num_steps=4)  # type: ignore[func-returns-value]
    for step in range(4):
        assert steps.take(step) == step
        for thread in reading_threads():
            thread.join(PATIENCE_SECONDS)
        assert read == list(range(min(step + 2, 4)))


def test_a_step_that_was_not_expected_is_read_at_once() -> None:
    steps = Prefetcher(lambda step: step, num_steps=100)
    assert [steps.take(step) for step in (0, 7, 8, 3, 3, 99)] == [0, 7, 8, 3, 3, 99]


def test_forget_drops_the_step_that_was_read_in_advance() -> None:
    source = {"name": "old"}
    steps = Prefetcher(lambda step: (source["name"], step), num_steps=9)
    steps.take(0)
    for thread in reading_threads():
        thread.join(PATIENCE_SECONDS)
    source["name"] = "new"
    steps.forget()
    assert steps.take(1) == ("new", 1)


def test_a_read_that_never_ends_does_not_hold_the_process() -> None:
    program = (
        "import threading\n"
        "from tinyllm.training.prefetch import Prefetcher\n"
        "steps = Prefetcher(lambda step: step and threading.Event().wait(), num_steps=9)\n"
        "print(steps.take(0))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")


@pytest.mark.parametrize("align_documents", [False, True])
def test_a_run_has_the_losses_of_one_that_reads_each_update_when_it_needs_it(
    align_documents: bool, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tiny_shards, 12, training={"align_documents": align_documents})
    _, trainer = train(tiny_shards, tmp_path / "ahead", config)
    monkeypatch.setattr(Prefetcher, "take", lambda self, step: self.read(step))
    _, direct = train(tiny_shards, tmp_path / "direct", config)
    assert losses(tmp_path / "ahead") == losses(tmp_path / "direct")
    assert len(losses(tmp_path / "ahead")) == 12
    for name, weight in trainer.model.state_dict().items():
        assert weight.equal(direct.model.state_dict()[name])


def test_an_error_of_the_thread_ends_the_run_at_its_own_step_with_its_own_message(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tiny_shards, 12)
    train(tiny_shards, tmp_path / "whole", config)
    read = NextToken._read_update
    names: list[str] = []

    def fail(self: NextToken, step: int) -> Any:
        names.append(threading.current_thread().name)
        if step == 5:
            raise ArtifactError("train-00003.bin is gone")
        return read(self, step)

    monkeypatch.setattr(NextToken, "_read_update", fail)
    with pytest.raises(ArtifactError, match=r"^train-00003.bin is gone$"):
        train(tiny_shards, tmp_path / "run", config)
    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "run") == {step: whole[step] for step in range(1, 6)}
    assert names == ["MainThread", *["input"] * 5]
    monkeypatch.setattr(NextToken, "_read_update", read)
    train(tiny_shards, tmp_path / "run", config, resume=True)
    assert losses(tmp_path / "run") == whole


def test_a_run_that_only_evaluates_reads_no_update(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(NextToken, "_read_update", lambda self, step: read.append(step))
    outcome, _ = train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 12, training={"eval_only": True}))
    assert (outcome.reason, read) == ("evaluated", [])


def test_a_run_ends_while_its_storage_still_reads(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit stops the run after update 1; the windows of update 2 arrive later."""
    storage_goes_on, read = threading.Event(), ShardArrays.read

    def wait_in_thread(self: ShardArrays, number: int, start: int, count: int) -> Tokens:
        if threading.current_thread().name == "input":
            assert storage_goes_on.wait(PATIENCE_SECONDS)
        return read(self, number, start, count)

    monkeypatch.setattr(ShardArrays, "read", wait_in_thread)
    config = make_config(tiny_shards, 12, training={"max_minutes": 1e-9})
    outcome, _ = train(tiny_shards, tmp_path / "run", config)
    waiting = reading_threads()
    storage_goes_on.set()
    for thread in waiting:
        thread.join(PATIENCE_SECONDS)
    assert (outcome.reason, outcome.state.step, len(waiting), reading_threads()) == ("time", 1, 1, [])
