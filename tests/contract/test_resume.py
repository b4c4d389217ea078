"""A run that was stopped and went on is, bit for bit, the run that never stopped."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tinyllm.errors import Interrupted
from tinyllm.training.checkpoint import checkpoint_path
from training_runs import Listener, losses, make_config, train

NUM_STEPS = 10


def stop_at(step: int) -> Listener:
    def send(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return Listener(at_step=send)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole_run(dtype: str, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    # Dropout too: its random numbers must not depend on where the run stopped.
    train(tiny_shards, run, make_config(tiny_shards, NUM_STEPS, model={"dropout": 0.1}, training={"dtype": dtype}))
    return run


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_stopped_and_resumed_is_bit_identical(
    stop: int, dtype: str, whole_run: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    """Stop points: right after the start, at an evaluation, and between a checkpoint and an evaluation."""
    run = tmp_path / "run"
    config = make_config(tiny_shards, NUM_STEPS, model={"dropout": 0.1}, training={"dtype": dtype})
    with pytest.raises(Interrupted) as stopped:
        train(tiny_shards, run, config, listener=stop_at(stop))
    assert stopped.value.exit_code == 143
    listener = Listener()
    train(tiny_shards, run, config, resume=True, listener=listener)

    assert any(f"step {stop}" in note for note in listener.notes)
    assert losses(run) == losses(whole_run)
    assert len(losses(run)) == NUM_STEPS
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours = load_file(checkpoint_path(run / "checkpoints", NUM_STEPS) / name)
        theirs = load_file(checkpoint_path(whole_run / "checkpoints", NUM_STEPS) / name)
        assert ours.keys() == theirs.keys()
        assert ours
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    best, expected = (load_file(place / "model" / "model.safetensors") for place in (run, whole_run))
    assert all(torch.equal(best[key], expected[key]) for key in expected)
