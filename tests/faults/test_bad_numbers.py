"""Bad numbers in training: NaN, infinity, gradients 1,000 times too large, float16 overflow."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tinyllm import storage
from tinyllm.errors import ArtifactError, DivergenceError
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.loop import Trainer
from tinyllm.training.step import Updater
from training_runs import Listener, losses, make_config

LIMIT = 10


def once_built(trainer: Trainer, change: Callable[[Updater], object]) -> None:
    """Calls `change` with the updater once the run has built it."""
    choose = trainer._choose_path

    def choose_and_change(checkpoint: Path | None) -> None:
        choose(checkpoint)
        change(trainer.updater)

    trainer._choose_path = choose_and_change  # type: ignore[method-assign]


def inject(trainer: Trainer, factor: float, steps: set[int]) -> None:
    """Multiplies the gradient of one matrix by `factor` in the updates after these steps."""

    def spoil(gradient: Tensor) -> Tensor:
        return gradient * factor if trainer.state.step in steps else gradient

    once_built(trainer, lambda updater: updater.shadow_weights[-2].register_hook(spoil))  # type: ignore[no-untyped-call]


def make_trainer(shards: Path, run: Path, dtype: str = "float32", num_steps: int = 20) -> tuple[Trainer, Listener]:
    listener = Listener()
    config = make_config(shards, num_steps, training={"dtype": dtype, "max_bad_steps": LIMIT, "keep_checkpoints": 99})
    return build_trainer(config, ShardSet.open(shards), run, reporter=listener), listener


def assert_all_finite(run: Path) -> int:
    """Asserts that every weight and moment on disk is finite; returns the number of files checked."""
    files = sorted(run.rglob("*.safetensors"))
    for file in files:
        for name, tensor in load_file(file).items():
            assert torch.isfinite(tensor).all(), f"{file}: {name}"
    return len(files)


@pytest.mark.promise("6 NaN, Inf, 1000 x gradients: nothing non-finite is saved", fast=2, full=20)
def test_bad_gradients_never_reach_the_disk(
    count: int, tell: Callable[[str], None], tiny_shards: Path, tmp_path: Path
) -> None:
    num_files = 0
    for index in range(count):
        for factor in (math.nan, math.inf, -math.inf, 1000.0):
            run = tmp_path / f"{factor} {index}"
            trainer, _ = make_trainer(tiny_shards, run)
            bad = {(3 + 7 * index + place) % 18 for place in range(1 + index % 5)}
            inject(trainer, factor, bad)
            trainer.train(resume=False, to_toml=lambda config: "")
            assert trainer.state.total_bad_steps == (0 if factor == 1000 else len(bad))
            assert len(losses(run)) == 20
            num_files += assert_all_finite(run)
    tell(f"{4 * count} runs, {num_files} files of finite numbers")


@pytest.mark.promise("6 stops after 10 skipped updates in a row", fast=2, full=8)
def test_ten_in_a_row_stop_the_run(count: int, tell: Callable[[str], None], tiny_shards: Path, tmp_path: Path) -> None:
    for index in range(count):
        dtype = ("float32", "float16", "bfloat16")[index % 3]
        trainer, _ = make_trainer(tiny_shards, tmp_path / f"run{index}", dtype, num_steps=60)
        first = 2 + index
        inject(trainer, math.nan, set(range(first, 100)))
        with pytest.raises(DivergenceError, match=f"{LIMIT} updates in a row"):
            trainer.train(resume=False, to_toml=lambda config: "")
        # In float16 the scaler first halves its scale down from 2**16, without effect.
        halvings = 17 if dtype == "float16" else 0
        assert trainer.state.step == first + LIMIT + halvings
        assert_all_finite(tmp_path / f"run{index}")
    tell(f"{count} of {count} stopped in time, in float32, float16 and bfloat16")


@pytest.mark.promise("6 float16 overflow is handled by the scaler", fast=1, full=5)
def test_float16_overflow_is_left_to_the_scaler(
    count: int, tell: Callable[[str], None], tiny_shards: Path, tmp_path: Path
) -> None:
    for index in range(count):
        run = tmp_path / f"run{index}"
        trainer, listener = make_trainer(tiny_shards, run, "float16")
        large_scale = torch.amp.GradScaler("cpu", init_scale=2.0**24)
        once_built(trainer, lambda updater, scaler=large_scale: setattr(updater, "scaler", scaler))  # type: ignore[misc]
        scales: list[float] = []

        def note_scale(step: int, trainer: Trainer = trainer, scales: list[float] = scales) -> None:
            scales.append(trainer.updater.scaler.get_scale())

        listener.at_step = note_scale
        inject(trainer, 1.0 + index, set(range(20)))
        trainer.train(resume=False, to_toml=lambda config: "")
        assert scales[0] == 2.0**23
        assert scales[-1] < 2.0**22
        assert trainer.state.total_bad_steps == 0
        assert not any("not finite" in note for note in listener.notes)
        assert losses(run)[20] < losses(run)[1]
        # The log must be valid JSON, without Infinity.
        assert "Infinity" not in (run / "metrics.jsonl").read_text()
        assert_all_finite(run)
    tell(f"{count} of {count} runs kept learning, no update counted as bad")


@pytest.mark.promise("6 a model with non-finite weights is not saved", fast=3, full=12)
def test_wrong_weights_are_never_saved(
    count: int, tell: Callable[[str], None], tiny_shards: Path, tmp_path: Path
) -> None:
    """An update overflows and makes a weight infinite; the next save must detect it."""
    for index in range(count):
        run = tmp_path / f"run{index}"
        trainer, listener = make_trainer(tiny_shards, run)
        value = (math.nan, math.inf, -math.inf)[index % 3]
        parameter = list(trainer.model.parameters())[index % 5]

        def spoil(step: int, parameter: Tensor = parameter, value: float = value) -> None:
            if step == 7:
                with torch.no_grad():
                    parameter.view(-1)[0] = value

        listener.at_step = spoil
        with pytest.raises((ArtifactError, DivergenceError)):
            trainer.train(resume=False, to_toml=lambda config: "")
        assert_all_finite(run)
        storage.verify(run / "checkpoints" / "step-00000006", "checkpoint")
        storage.verify(run / "model", "model")
    tell(f"{count} of {count} refused")
