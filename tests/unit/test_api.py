"""The public functions behave like the commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from tinyllm.errors import ConfigError, MismatchError
from training_runs import MODEL, TRAINING, Listener


def test_train_then_generate(tiny_shards: Path, tmp_path: Path) -> None:
    listener = Listener()
    outcome = tinyllm.train(
        tiny_shards,
        tmp_path / "run",
        recipe="storybook",
        reporter=listener,
        model={**MODEL, "intermediate_size": 32},
        training=TRAINING,
        schedule={"num_steps": 4},
    )
    assert outcome.state.step == 4
    assert "saved model" in listener.notes
    text = tinyllm.generate("Once upon a time", model=tmp_path / "run", max_new_tokens=3, temperature=0)
    assert text.startswith("Once upon a time")
    assert text == tinyllm.generate(
        "Once upon a time", model=tmp_path / "run" / "model", max_new_tokens=3, temperature=0
    )


def test_settings_are_checked_before_the_work(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sections: unknown key model.depth; did you mean model.dropout"):
        tinyllm.train(tiny_shards, tmp_path / "run", model={"depth": 3})
    with pytest.raises(MismatchError, match="model.vocab_size is 7"):
        tinyllm.train(tiny_shards, tmp_path / "run", model={"vocab_size": 7})


def test_a_loaded_model_streams_what_it_generates(make_model_dir: Callable[..., Path]) -> None:
    model = tinyllm.load(make_model_dir())
    text = model.generate("Once", max_new_tokens=8, seed=3)[0].text
    assert "".join(model.stream("Once", max_new_tokens=8, seed=3)) == text


def test_a_run_resumes_with_its_own_settings(tiny_shards: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "model": {**MODEL, "num_layers": 1},
        "training": TRAINING,
        "schedule": {"num_steps": 4, "warmup_steps": 1},
    }
    tinyllm.train(tiny_shards, tmp_path / "run", recipe="storybook", **small)
    outcome = tinyllm.train(tiny_shards, tmp_path / "run", resume=True, schedule={"num_steps": 6})
    assert (outcome.reason, outcome.state.step) == ("done", 6)
    assert outcome.num_tokens == 6 * 2 * 2 * 16
    with pytest.raises(MismatchError, match=r"training.batch_size 2, this run has 3; restore that setting, or start"):
        tinyllm.train(tiny_shards, tmp_path / "run", resume=True, training={"batch_size": 3})
