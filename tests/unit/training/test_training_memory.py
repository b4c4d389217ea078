"""A run that cannot fit into memory is refused with the bytes; any other run starts."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tinyllm
from tinyllm.config import Config
from tinyllm.config.layers import build_run_config
from tinyllm.config.recipes import recipe_names
from tinyllm.doctor.forecast import forecast
from tinyllm.errors import ResourceError, TinyllmError
from tinyllm.model.size import weight_bytes
from tinyllm.training.memory import check_memory

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
    monkeypatch.setattr("tinyllm.training.memory.device_memory_bytes", lambda device: 16 * 2**30)
    check_memory(config_of(recipe), CPU)


def test_the_bound_is_below_the_forecast_and_above_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("stories15m")
    monkeypatch.setattr("tinyllm.training.memory.device_memory_bytes", lambda device: forecast(config).memory_bytes)
    check_memory(config, CPU)
    monkeypatch.setattr("tinyllm.training.memory.device_memory_bytes", lambda device: 3 * weight_bytes(config.model))
    with pytest.raises(ResourceError, match="activations of one microbatch"):
        check_memory(config, CPU)


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
