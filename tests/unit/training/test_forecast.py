"""A run that cannot fit into memory is refused with the bytes; any other run starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tinyllm
from tinyllm.config import Config
from tinyllm.errors import ResourceError, TinyllmError
from tinyllm.machine.memory import device_memory_bytes, shortages_named
from tinyllm.model.size import weight_bytes
from tinyllm.recipes import recipe_names
from tinyllm.settings import build_run_config
from tinyllm.training import forecast
from tinyllm.training.forecast import check_memory
from tinyllm.training.step import Updater
from tinyllm.training.trial import measure_step_seconds
from training_runs import make_config

CPU = torch.device("cpu")


def config_of(recipe: str = "stories260k", **sections: dict[str, Any]) -> Config:
    config, _ = build_run_config(512, Path("none"), [("flags", sections)], recipe=recipe)
    return config


@pytest.mark.parametrize(
    ("sections", "cause"),
    [
        ({"training": {"batch_size": 100_000_000}}, r"for activations of one microbatch; .* training.batch_size or"),
        ({"model": {"hidden_size": 4_000_000}}, r"for weights, gradients and moments; .* smaller model.hidden_size or"),
        ({"model": {"intermediate_size": 10**12}}, "for weights, gradients and moments"),
        ({"model": {"multiple_of": 10**12}}, "for weights, gradients and moments"),
        ({"model": {"num_layers": 10**12}}, "for weights, gradients and moments"),
    ],
)
def test_a_run_far_too_large_is_refused_with_its_bytes(sections: dict[str, Any], cause: str) -> None:
    with pytest.raises(ResourceError, match=rf"needs at least [\d,]+ bytes of memory, [\d,]+ of them {cause}"):
        check_memory(config_of(**sections), CPU)


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_fits_into_sixteen_gigabytes(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.training.forecast.device_memory_bytes", lambda device: 16 * 2**30)
    check_memory(config_of(recipe), CPU)


def test_the_bound_is_below_the_forecast_and_above_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("stories15m")
    monkeypatch.setattr(
        "tinyllm.training.forecast.device_memory_bytes", lambda device: forecast.forecast(config).memory_bytes
    )
    check_memory(config, CPU)
    monkeypatch.setattr("tinyllm.training.forecast.device_memory_bytes", lambda device: 3 * weight_bytes(config.model))
    with pytest.raises(ResourceError, match="activations of one microbatch"):
        check_memory(config, CPU)


def test_this_machine_reports_its_available_memory() -> None:
    limit = device_memory_bytes(CPU)
    assert limit is not None
    assert 2**28 < limit < 2**50


@pytest.mark.parametrize(
    ("allocate", "bytes_asked"),
    [(lambda: torch.empty(2**56, dtype=torch.float32), str(2**58)), (lambda: np.empty(2**58, np.uint8), "256. PiB")],
)
def test_a_failed_allocation_gives_one_line_with_its_bytes(allocate: Any, bytes_asked: str) -> None:
    message = f"memory is not enough: {bytes_asked}.* were asked for at once"
    with pytest.raises(ResourceError, match=message), shortages_named():
        allocate()


@pytest.mark.parametrize(
    ("error", "bytes_asked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ..."), ": 20.00 MiB were"),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 1.0 GB). Tried to allocate 8.00 GB"),
            ": 8.00 GB were",
        ),
        (RuntimeError("Invalid buffer size: 64.00 GB"), ": 64.00 GB were"),
        (MemoryError(), "memory is not enough, "),
    ],
)
def test_messages_of_each_device_are_recognised(error: Exception, bytes_asked: str) -> None:
    with pytest.raises(ResourceError, match=bytes_asked), shortages_named():
        raise error


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), shortages_named():
        torch.ones(2) + torch.ones(3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"hidden_size": 4_000_000}, "bytes of memory"),
        (
            {"num_layers": 1001, "hidden_size": 16},
            "could be saved but not loaded: .*num_hidden_layers is 1001; at most",
        ),
        ({"context_length": 2**21}, "could be saved but not loaded: .*max_position_embeddings is 2097152; at most"),
    ],
)
def test_train_refuses_what_cannot_be_trained_or_loaded(
    model: dict[str, int], message: str, tiny_shards: Path, tmp_path: Path
) -> None:
    small = {"batch_size": 1, "sequence_length": 8}
    with pytest.raises(TinyllmError, match=message):
        tinyllm.train(tiny_shards, tmp_path / "run", recipe="stories260k", model=model, training=small)
    assert not (tmp_path / "run").exists()


def test_a_measurement_without_time_still_measures_one_update(
    monkeypatch: pytest.MonkeyPatch, tiny_shards: Path
) -> None:
    updates: list[int] = []
    update = Updater.update
    monkeypatch.setattr(Updater, "update", lambda self, *rest: updates.append(1) or update(self, *rest))
    config = make_config(tiny_shards)
    assert measure_step_seconds(config, num_steps=20, limit_seconds=0) > 0
    assert len(updates) == 3
