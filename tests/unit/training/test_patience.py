"""Early stop: the evaluations that count, the end of the run, and the same end after a stop."""

import math
import os
import signal
from pathlib import Path

import pytest

from tinyllm import storage
from tinyllm.doctor.diagnosis import diagnose
from tinyllm.errors import Interrupted
from tinyllm.training.checkpoint import TrainingState, checkpoint_path, read_state
from tinyllm.training.objective import Evaluation
from tinyllm.training.patience import count_evaluation, is_out_of_patience
from tinyllm.training.stop_log import early_end
from training_runs import Listener, make_config, train

STILL = {"peak": 1e-30}
"""A learning rate that changes no weight, so no evaluation is better than the first."""


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0], 0),
        ([3.0, 2.0, 1.0], 0),
        ([3.0, 2.0, 2.0, 2.5], 2),
        ([3.0, 4.0, 2.9], 0),
        ([3.0, math.nan, math.inf], 2),
        ([math.nan, 3.0], 0),
    ],
)
def test_evaluations_since_the_lowest_loss_are_counted(losses: list[float], expected: int) -> None:
    state = TrainingState()
    for loss in losses:
        count_evaluation(state, Evaluation(loss))
    assert state.worse_evaluations == expected
    assert is_out_of_patience(state, 2) == (expected >= 2)
    assert not is_out_of_patience(state, 0)


def test_a_run_without_progress_ends_early_and_stays_ended(tiny_shards: Path, tmp_path: Path) -> None:
    run, listener = tmp_path / "run", Listener()
    config = make_config(tiny_shards, 40, training={"patience": 2}, schedule=STILL)
    outcome, _ = train(tiny_shards, run, config, listener=listener)
    assert (outcome.reason, outcome.state.step) == ("early", 12)
    assert "ended early at step 12 of 40: no lower validation loss in 2 evaluations" in listener.notes
    assert outcome.model is not None
    assert outcome.model.step == 4
    assert early_end(run) == 12
    assert "ended early at step 12" in next(finding.result for finding in diagnose(run) if finding.path == run)
    log = (run / "metrics.jsonl").read_bytes()
    outcome, _ = train(tiny_shards, run, config, resume=True)
    assert (outcome.reason, outcome.state.step) == ("early", 12)
    assert (run / "metrics.jsonl").read_bytes() == log
    patient = make_config(tiny_shards, 40, training={"patience": 3}, schedule=STILL)
    outcome, _ = train(tiny_shards, run, patient, resume=True)
    assert outcome.state.step == 16


def test_a_stopped_run_ends_early_at_the_same_step(tiny_shards: Path, tmp_path: Path) -> None:
    """Each session does one update, and evaluates the step that it stops at."""
    run = tmp_path / "run"
    config = make_config(tiny_shards, 40, training={"patience": 1, "max_minutes": 1e-9}, schedule=STILL)
    steps = [train(tiny_shards, run, config, resume=number > 0)[0].state.step for number in range(10)]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    evaluated = [r["step"] for r in storage.read_json_lines(run / "metrics.jsonl") if "validation_loss" in r]
    assert evaluated == [0, 4, 8]
    assert read_state(checkpoint_path(run / "checkpoints", 8)).worse_evaluations == 1


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals of POSIX")
def test_an_end_that_is_found_after_a_stop_is_saved(tiny_shards: Path, tmp_path: Path) -> None:
    """A signal at step 8 leaves out its evaluation, which is the last one; the resumed run does it once."""
    run = tmp_path / "run"
    config = make_config(tiny_shards, 40, training={"patience": 1}, schedule=STILL)
    stopper = Listener(lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 8 else None)
    with pytest.raises(Interrupted):
        train(tiny_shards, run, config, listener=stopper)
    for _ in range(2):
        assert train(tiny_shards, run, config, resume=True)[0].state.step == 8
    evaluated = [r["step"] for r in storage.read_json_lines(run / "metrics.jsonl") if "validation_loss" in r]
    assert evaluated == [0, 4, 8]


def test_a_run_that_learns_uses_all_its_steps(tiny_shards: Path, tmp_path: Path) -> None:
    outcome, _ = train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 12, training={"patience": 1}))
    assert (outcome.reason, outcome.state.step) == ("done", 12)
