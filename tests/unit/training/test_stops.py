"""Every stop evaluates its step, saves the best model, and does not change the resumed run."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tinyllm import storage
from tinyllm.errors import Interrupted, TinyllmError
from tinyllm.machine.signals import stop_signals
from tinyllm.model_dir import load_model
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.checkpoint import checkpoint_path, read_state
from tinyllm.training.loop import Trainer
from tinyllm.training.next_token import NextToken
from tinyllm.training.outcome import Outcome
from tinyllm.training.saved_model import SavedModel
from tinyllm.training.step import Updater
from tinyllm.training.stop_log import read_stops
from training_runs import Listener, make_config, train

NUM_STEPS = 10
OUT_OF_TIME = {"max_minutes": 1e-9}


class Stopper(Listener):
    """A `Listener` that sends signals to this process at an update or at an evaluation."""

    def __init__(self, signals: dict[tuple[str, int], int]) -> None:
        super().__init__()
        self.signals = signals

    def step(self, record: dict[str, Any]) -> None:
        super().step(record)
        self.send("update", record["step"])

    def evaluation(self, record: dict[str, Any]) -> None:
        super().evaluation(record)
        self.send("evaluation", record["step"])

    def send(self, moment: str, step: int) -> None:
        if (moment, step) in self.signals:
            os.kill(os.getpid(), self.signals[moment, step])


def start(shards: Path, run: Path, listener: Listener, **sections: Any) -> Trainer:
    return build_trainer(make_config(shards, NUM_STEPS, **sections), ShardSet.open(shards), run, reporter=listener)


def go(trainer: Trainer, *, resume: bool = False) -> Outcome:
    return trainer.train(resume=resume, to_toml=lambda config: "")


def evaluations(run: Path) -> list[tuple[int, float]]:
    records = storage.read_json_lines(run / "metrics.jsonl")
    return [(r["step"], r["validation_loss"]) for r in records if "validation_loss" in r]


def newest_state(run: Path, step: int) -> dict[str, Any]:
    """The state of a checkpoint without its seconds."""
    return read_state(checkpoint_path(run / "checkpoints", step)).model_dump(exclude={"seconds"})


@pytest.fixture(scope="module")
def undisturbed(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    train(tiny_shards, run, make_config(tiny_shards, NUM_STEPS))
    return run


def test_the_time_limit_before_the_first_evaluation_saves_a_model(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome, trainer = train(tiny_shards, run, make_config(tiny_shards, NUM_STEPS, training=OUT_OF_TIME))
    assert outcome.reason == "time"
    assert outcome.evaluation is not None
    assert outcome.model == SavedModel(1, outcome.evaluation.loss, outcome.evaluation.bits_per_byte)
    assert repr(outcome).startswith("Outcome('time', step=1, model=SavedModel(step=1, loss=")
    saved = load_model(run / "model")[0].state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in trainer.model.state_dict().items())
    assert [step for step, _ in evaluations(run)] == [0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("place", [("update", 1), ("update", 6), ("evaluation", 4)])
def test_a_signal_leaves_a_model_and_names_it(
    place: tuple[str, int], number: int, tiny_shards: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run, step = tmp_path / "run", place[1]
    with pytest.raises(Interrupted) as stopped:
        go(start(tiny_shards, run, Stopper({place: number})))
    assert stopped.value.exit_code == 128 + number
    saved = SavedModel.read(run / "model")
    assert saved is not None
    assert saved.step == step
    said = f"stopped at step {step} and saved; {run / 'model'} is of step {step}: validation loss {saved.loss:.4f}, "
    assert str(stopped.value).startswith(said)
    go(start(tiny_shards, run, Listener()), resume=True)
    assert evaluations(run) == evaluations(undisturbed)
    assert newest_state(run, NUM_STEPS) == newest_state(undisturbed, NUM_STEPS)
    assert SavedModel.read(run / "model") == SavedModel.read(undisturbed / "model")


def test_a_signal_during_an_evaluation_saves_first_and_then_evaluates_again(
    tiny_shards: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    sent: list[Any] = []
    to_device = NextToken._to_device

    def stop_once(self: NextToken, batch: Any) -> Any:
        if trainer.state.step == 4 and not trainer.updater.shadow.training and not sent:
            sent.append(list((run / "checkpoints").iterdir()))
            os.kill(os.getpid(), signal.SIGTERM)
        return to_device(self, batch)

    monkeypatch.setattr(NextToken, "_to_device", stop_once)
    trainer = start(tiny_shards, run, Listener())
    with pytest.raises(Interrupted, match="stopped at step 4 and saved; .*model is of step 4"):
        go(trainer)
    assert [path.name for path in sent[0]] == ["step-00000003"]
    assert checkpoint_path(run / "checkpoints", 4).is_dir()
    go(start(tiny_shards, run, Listener()), resume=True)
    assert evaluations(run) == evaluations(undisturbed)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_evaluation_of_a_stop_at_once(
    second: int, tiny_shards: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    whole = NextToken.evaluate

    def interrupt(self: NextToken, updater: Updater, stop: Any) -> Any:
        if stop is None:  # a stop request does not interrupt the evaluation of a stop
            os.kill(os.getpid(), second)
            pytest.fail("the second signal did not end the process")
        return whole(self, updater, stop)

    monkeypatch.setattr(NextToken, "evaluate", interrupt)
    with pytest.raises(SystemExit) as ended:
        go(start(tiny_shards, run, Stopper({("update", 6): signal.SIGTERM})))
    assert ended.value.code == 128 + second
    monkeypatch.undo()
    storage.verify(checkpoint_path(run / "checkpoints", 6), "checkpoint")
    go(start(tiny_shards, run, Listener()), resume=True)
    assert evaluations(run) == evaluations(undisturbed)


def test_several_sighup_of_a_closed_terminal_save_the_run(tiny_shards: Path, tmp_path: Path) -> None:
    class Twice(Listener):
        def step(self, record: dict[str, Any]) -> None:
            if record["step"] == 2:
                os.kill(os.getpid(), signal.SIGHUP)
                os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(Interrupted, match="stopped at step 2 and saved") as stopped:
        go(start(tiny_shards, tmp_path / "run", Twice()))
    assert stopped.value.exit_code == 129


def test_an_ignored_sighup_stays_ignored() -> None:
    """`nohup tinyllm train` must survive the end of its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def worsen(trainer: Trainer, step: int) -> Callable[[int], None]:
    """A hook that makes the weights worse after `step`, so that no later evaluation is the best."""

    def spoil(now: int) -> None:
        if now == step:
            with torch.no_grad():
                for parameter in trainer.model.parameters():
                    parameter.normal_()
            trainer.updater.sync_shadow()

    return spoil


def test_a_stop_at_a_worse_step_keeps_the_better_model_and_names_it(tiny_shards: Path, tmp_path: Path) -> None:
    listener = Stopper({("update", 6): signal.SIGTERM})
    trainer = start(tiny_shards, tmp_path / "run", listener)
    listener.at_step = worsen(trainer, 5)
    with pytest.raises(Interrupted, match="stopped at step 6 and saved; .*model is of step 4: validation loss"):
        go(trainer)


def test_the_model_of_a_stop_stays_if_no_later_one_is_better(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        go(start(tiny_shards, run, Stopper({("update", 6): signal.SIGTERM})))
    best = SavedModel.read(run / "model")
    listener = Listener()
    trainer = start(tiny_shards, run, listener)
    listener.at_step = worsen(trainer, 7)
    outcome = go(trainer, resume=True)
    assert best is not None
    assert best.step == 6
    assert outcome.model == best
    assert all(loss > best.loss for step, loss in evaluations(run) if step > 6)


def test_a_resume_with_nothing_left_names_the_model(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first, _ = train(tiny_shards, run, make_config(tiny_shards, NUM_STEPS))
    again, _ = train(tiny_shards, run, make_config(tiny_shards, NUM_STEPS), resume=True)
    assert again.reason == "done"
    assert again.evaluation is None
    assert again.model == first.model
    assert again.model is not None


def test_outside_the_main_thread_a_run_is_the_same_and_notes_that_signals_do_not_save_it(
    tiny_shards: Path, tmp_path: Path, undisturbed: Path
) -> None:
    listener, outcomes = Listener(), []
    trainer = start(tiny_shards, tmp_path / "run", listener)
    thread = threading.Thread(target=lambda: outcomes.append(go(trainer)))
    thread.start()
    thread.join()
    assert outcomes[0].reason == "done"
    assert sum("outside the main thread: signals do not save the run" in note for note in listener.notes) == 1
    assert evaluations(tmp_path / "run") == evaluations(undisturbed)


def marks(run: Path) -> int:
    """The number of stops in the run's loss curve."""
    return (run / "loss.svg").read_text(encoding="utf-8").count('class="stop"')


def test_each_stop_is_logged_and_drawn_and_metrics_do_not_have_it(
    tiny_shards: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    for step, resume in ((2, False), (6, True)):
        with pytest.raises(Interrupted):
            go(start(tiny_shards, run, Stopper({("update", step): signal.SIGTERM})), resume=resume)
        assert read_stops(run)[-1] == step
        assert marks(run) == len(read_stops(run)), "the curve is drawn again at the stop"
    go(start(tiny_shards, run, Listener()), resume=True)
    stops = storage.read_json_lines(run / "stops.jsonl")
    reasons = [(stop["step"], stop["reason"]) for stop in stops]
    assert reasons == [(2, "signal 15"), (2, "resumed"), (6, "signal 15"), (6, "resumed")]
    measured = {step for step, *_ in evaluations(run)}
    assert [stop["step"] for stop in stops if "validation_loss" in stop] == [
        step for step in (2, 6) if step not in measured
    ], "a stop has its evaluation unless metrics.jsonl has it"
    assert marks(run) == 2
    assert evaluations(run) == evaluations(undisturbed)
    assert not (undisturbed / "stops.jsonl").exists()
    assert marks(undisturbed) == 0


def test_the_time_limit_and_a_killed_process_are_stops_too(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_shards, run, make_config(tiny_shards, NUM_STEPS, training=OUT_OF_TIME))
    (stop,) = storage.read_json_lines(run / "stops.jsonl")
    assert (stop["step"], stop["reason"]) == (1, "time")
    assert stop["validation_loss"] > 0

    class Killed(Listener):
        def step(self, record: dict[str, Any]) -> None:
            if record["step"] == 5:
                raise MemoryError  # after the checkpoint of step 3

    with pytest.raises(TinyllmError):
        go(start(tiny_shards, run, Killed()), resume=True)
    go(start(tiny_shards, run, Listener()), resume=True)
    assert [record["reason"] for record in storage.read_json_lines(run / "stops.jsonl")] == [
        "time",
        "resumed",
        "resumed",
    ]
    assert read_stops(run) == [1, 3]


def test_a_run_tells_where_it_starts_and_what_it_samples(tiny_shards: Path, tmp_path: Path) -> None:
    first, second = Stopper({("update", 6): signal.SIGTERM}), Listener()
    with pytest.raises(Interrupted):
        go(start(tiny_shards, tmp_path / "run", first))
    saved = SavedModel.read(tmp_path / "run" / "model")
    assert saved is not None
    shards = ShardSet.open(tiny_shards)
    trainer = build_trainer(
        make_config(tiny_shards, NUM_STEPS),
        shards,
        tmp_path / "run",
        reporter=second,
        sampler=lambda model, tokenizer, settings: ["a text", "another"],
    )
    go(trainer, resume=True)
    assert first.events == [("started", (0, None))]
    texts = ("Once upon a time", ["a text", "another"])
    assert second.events == [
        ("started", (6, saved.loss)),
        ("samples", (8, *texts)),
        ("samples", (10, *texts)),
    ]
