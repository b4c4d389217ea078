"""Runs described from their files: state, marks, settings and samples, without touching the lock."""

import math
import os
import time
from pathlib import Path

import pytest

from studio_folder import TOKENS_PER_STEP, evaluation, sample, update, write_lines, write_run
from tinyllm import storage
from tinyllm.config import ModelConfig
from tinyllm.model.transformer import Transformer
from tinyllm.serving.studio.library import Item
from tinyllm.serving.studio.runs import Settings, describe, read_progress, state_of, summarize
from tinyllm.serving.studio.samples import MOST_CHARACTERS, MOST_STEPS, end_of_samples, read_new_samples, read_samples


def item_of(run: Path) -> Item:
    return Item("run", run.name, run)


def age(run: Path, seconds: float = 10_000) -> None:
    """Makes the log look as if nobody wrote into it for a while."""
    past = time.time() - seconds
    os.utime(run / "metrics.jsonl", (past, past))


def state(run: Path) -> str:
    settings = Settings.read(run)
    return state_of(run, settings, read_progress(run, settings))


def test_a_run_is_described_from_its_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    found = describe(item_of(run), [7])
    assert (found["step"], found["num_steps"], found["tokens_per_step"]) == (50, 100, TOKENS_PER_STEP)
    assert found["config"]["training"]["sequence_length"] == 16
    shape = {"vocab_size": 320, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
    model = Transformer(ModelConfig.model_validate(shape))
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["problem"] is None
    assert found["marks"] == [{"step": 7, "kind": "skip", "text": "skipped: loss or gradient not finite"}]
    assert summarize(item_of(run))["best_validation_loss"] == pytest.approx(8 / 1.5)


def test_a_held_lock_means_running_and_is_not_touched(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    age(run)
    assert state(run) == "stopped"
    if storage.seems_locked(run / ".lock") is None:
        pytest.skip("this system does not tell who holds a lock")
    with storage.exclusive(run):
        assert state(run) == "running"
        assert describe(item_of(run), [])["seconds_left"] == pytest.approx(25)
    assert state(run) == "stopped"


def test_looking_never_stops_a_run_that_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setattr("tinyllm.machine.system.try_lock_file", lambda descriptor: pytest.fail("a lock was tried"))
    before = {path: path.stat() for path in run.iterdir()}
    describe(item_of(run), [])
    summarize(item_of(run))
    read_samples(run, None, 20)
    assert {path: path.stat()[:9] for path in run.iterdir()} == {path: found[:9] for path, found in before.items()}


def test_a_run_of_another_machine_is_known_by_its_growth(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / ".lock").unlink()
    assert state(run) == "running"
    age(run)
    assert state(run) == "stopped"


def test_a_slow_run_of_another_machine_has_more_time_between_two_lines(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_lines(run / "metrics.jsonl", [update(step, tokens_per_second=0.5) for step in range(51, 60)], "a")
    for _ in range(2):
        write_lines(run / "metrics.jsonl", [update(60, tokens_per_second=0.1)] * 100, "a")
    age(run, 1_000)
    assert state(run) == "running"


def test_finished_and_stopped_runs_say_so(tmp_path: Path) -> None:
    assert state(write_run(tmp_path / "finished", 100)) == "finished"
    run = write_run(tmp_path / "stopped")
    write_lines(run / "stops.jsonl", [{"step": 30, "reason": "resumed"}, {"step": 50, "reason": "signal 2"}])
    assert state(run) == "stopped"
    early = write_run(tmp_path / "early")
    write_lines(early / "stops.jsonl", [{"step": 50, "reason": "early"}])
    assert state(early) == "finished"
    (run / "checkpoints" / "step-00000050").mkdir(parents=True)
    (run / "checkpoints" / "step-x").mkdir()
    marks = [(mark["step"], mark["kind"], mark["text"]) for mark in describe(item_of(run), [])["marks"]]
    assert marks == [(30, "resume", "resumed"), (50, "stop", "signal 2"), (50, "save", "checkpoint")]


def test_a_run_says_whether_its_loss_is_a_number_and_whether_it_has_samples(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert summarize(item_of(run))["is_finite"]
    assert describe(item_of(run), [])["has_samples"]
    (run / "samples.jsonl").write_bytes(b"")
    assert not describe(item_of(run), [])["has_samples"]
    write_lines(run / "metrics.jsonl", [update(51, loss=math.nan), evaluation(51)], "a")
    assert not summarize(item_of(run))["is_finite"]
    write_lines(run / "metrics.jsonl", [update(52)], "a")
    assert summarize(item_of(run))["is_finite"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a = ", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"# " + b"x" * 2**20, "more than 1,048,576 bytes"),
    ],
)
def test_settings_that_cannot_be_read_are_told(text: bytes, problem: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "config.toml").write_bytes(text)
    found = describe(item_of(run), [])
    assert found["config"] == {}
    assert problem in found["problem"]
    assert found["step"] == 50


def test_settings_of_wrong_types_are_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "config.toml").write_text('model = 3\n[training]\nbatch_size = "2"\n[schedule]\nnum_steps = -1\n')
    found = describe(item_of(run), [])
    assert (found["num_steps"], found["tokens_per_step"], found["parameters"]) == (None, None, None)


def test_samples_have_the_loss_of_their_step(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    found = read_samples(run, None, 2)
    assert found["steps"] == [10, 20, 30, 40, 50]
    assert [each["step"] for each in found["samples"]] == [40, 50]
    assert found["samples"][1] == {
        "step": 50,
        "prompt": "Once upon a time",
        "text": " there was number 50.",
        "validation_loss": pytest.approx(8 / 1.5),
    }
    assert [each["step"] for each in read_samples(run, 15, 2)["samples"]] == [20, 30]
    assert found["steps"] == [10, 20, 30, 40, 50]
    assert read_samples(run, 15, 2, with_steps=False) == {**read_samples(run, 15, 2), "steps": []}
    assert read_samples(run, 51, 2)["samples"] == []


def test_10_000_samples_are_bounded(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    text = "x" * 2 * MOST_CHARACTERS
    write_lines(run / "samples.jsonl", [sample(step) for step in range(1, 10_000)])
    write_lines(run / "samples.jsonl", [sample(10_000) | {"text": text}], "a")
    begin = time.monotonic()
    found = read_samples(run, 5_000, 20)
    assert time.monotonic() - begin < 2
    assert len(found["steps"]) == MOST_STEPS
    assert (found["steps"][0], found["steps"][-1]) == (1, 10_000)
    assert [each["step"] for each in found["samples"]] == list(range(5_000, 5_020))
    assert len(read_samples(run, 10_000, 1)["samples"][0]["text"]) == MOST_CHARACTERS


def test_new_samples_follow_a_place(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    place = end_of_samples(run)
    assert read_new_samples(run, place, 20) == ([], place)
    write_lines(run / "samples.jsonl", [sample(60), sample(70) | {"text": None, "prompt": ["x"]}], "a")
    found, after = read_new_samples(run, place, 20)
    assert [(each["step"], each["text"]) for each in found] == [(60, " there was number 60."), (70, "")]
    assert read_new_samples(run, after, 20)[0] == []
    assert end_of_samples(tmp_path / "nothing").offset == 0
