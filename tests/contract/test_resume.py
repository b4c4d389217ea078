"""A stopped and resumed run equals, bit for bit, the run that never stopped."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tinyllm.errors import Interrupted
from tinyllm.kernels.train import library
from tinyllm.training.checkpoint import checkpoint_path
from training_runs import Listener, losses, make_config, train

NUM_STEPS = 10


def stop_at(step: int) -> Listener:
    def send(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return Listener(at_step=send)


WAYS = [
    {"dtype": "float32"},
    {"dtype": "bfloat16", "attention": "explicit"},
    {"dtype": "bfloat16", "attention": "explicit", "name": "muon"},
    pytest.param(
        {"dtype": "bfloat16", "attention": "tiled"},
        marks=pytest.mark.skipif(
            not library.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler"
        ),
    ),
    pytest.param({"dtype": "bfloat16", "attention": "explicit", "compile": "on"}, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: "-".join(way.values()))
def sections(request: pytest.FixtureRequest) -> dict[str, Any]:
    training = dict(request.param)
    optimizer = {"name": training.pop("name", "adamw")}
    # Dropout too: its random numbers must not depend on where the run stopped. Tiled attention has none.
    dropout = 0.0 if training.get("attention") == "tiled" else 0.1
    return {"model": {"dropout": dropout}, "training": training, "optimizer": optimizer}


@pytest.fixture(scope="module")
def whole_run(sections: dict[str, Any], tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_shards, run, make_config(tiny_shards, NUM_STEPS, **sections))
    return run


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_stopped_and_resumed_is_bit_identical(
    stop: int, sections: dict[str, Any], whole_run: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    """Stop points: right after the start, at an evaluation, and between a checkpoint and an evaluation."""
    run = tmp_path / "run"
    config = make_config(tiny_shards, NUM_STEPS, **sections)
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


def test_a_resumed_run_keeps_the_path_that_auto_chose(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    chosen = {"dtype": "bfloat16", "attention": "explicit"}
    train(tiny_shards, run, make_config(tiny_shards, 3, training=chosen))
    auto = {"dtype": "auto", "attention": "auto", "compile": "auto"}
    listener = Listener()
    _, trainer = train(tiny_shards, run, make_config(tiny_shards, 6, training=auto), resume=True, listener=listener)
    settings = trainer.config.training
    assert (settings.dtype, settings.attention, settings.compile) == ("bfloat16", "explicit", "off")
    assert not any("changed since the checkpoint: attention" in note for note in listener.notes)
    fused = make_config(tiny_shards, 9, training=auto | {"attention": "fused"})
    train(tiny_shards, run, fused, resume=True, listener=listener)
    assert any("attention explicit, this run has fused; sums may round" in note for note in listener.notes)
