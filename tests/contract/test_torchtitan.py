"""A model of tinyllm has the same logits in torchtitan, by its own adapter. Runs where torchtitan is installed."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from training_runs import make_config, train

SCRIPT = Path(__file__).parent.parent.parent / "examples" / "to_torchtitan.py"
MOST = 1e-4
"""Largest difference of logits: both compute in float32, with sums in another order."""


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    pytest.importorskip("torchtitan", reason="torchtitan is not installed")
    return runpy.run_path(str(SCRIPT))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"num_heads": 4, "num_kv_heads": 2},
        {"num_heads": 2, "num_kv_heads": 2, "tie_embeddings": False, "rope_theta": 500_000.0, "norm_eps": 1e-6},
    ],
)
def test_logits_are_equal(model: dict[str, Any], tiny_shards: Path, tmp_path: Path, script: dict[str, Any]) -> None:
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3, model=model))
    assert script["largest_difference"](tmp_path / "run" / "model") < MOST


@pytest.mark.slow
def test_biases_are_refused(tiny_shards: Path, tmp_path: Path, script: dict[str, Any]) -> None:
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3, model={"mlp_bias": True}))
    with pytest.raises(ValueError, match="the model has biases"):
        script["load"](tmp_path / "run" / "model")


def test_without_torchtitan_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["torchtitan", *(name for name in sys.modules if name.startswith("torchtitan."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match="this program needs torchtitan .*: pip install torchtitan"):
        runpy.run_path(str(SCRIPT))
