"""Settings that sharding refuses, and the file that is streamed from gathered tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tinyllm.errors import UsageError
from tinyllm.machine import ranks
from tinyllm.safetensors_file import SafetensorsFile
from tinyllm.training import sharding
from training_runs import make_config


def test_a_streamed_file_is_read_by_the_library_and_by_us(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.randn(3, 5), "a.step": torch.tensor(7.0), "b": torch.randn(2)}
    path = tmp_path / "streamed.safetensors"
    path.write_bytes(b"".join(sharding.Gathering(tensors).stream(tensors)))
    library, ours = load_file(path), SafetensorsFile(path)
    assert library.keys() == tensors.keys() == ours.keys()
    for name, tensor in tensors.items():
        assert torch.equal(library[name], tensor)
        assert torch.equal(torch.from_numpy(ours[name]), tensor)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"optimizer": {"name": "muon"}}, "optimizer.name is muon, which needs whole matrices"),
        ({"training": {"dtype": "float16"}}, "training.dtype is float16, whose gradients are scaled"),
        ({"training": {"attention": "tiled"}}, "training.attention is tiled, which needs whole weights"),
        ({"training": {"compile": "on"}}, "training.compile is on; training.parallel fsdp does without it"),
        ({"training": {"accumulation_steps": 1, "batch_size": 3}}, "2 ranks cannot share 3 windows an update evenly"),
    ],
)
def test_settings_that_sharding_refuses_are_named(
    sections: dict[str, Any], message: str, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"parallel": "fsdp", **sections.get("training", {})}
    config = make_config(tiny_shards, 3, **{**sections, "training": training})
    assert sharding.settle(config) is config
    monkeypatch.setattr(ranks, "num_ranks", lambda: 2)
    with pytest.raises(UsageError, match=message):
        sharding.settle(config)


def test_sharding_does_without_compilation(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tiny_shards, 3, training={"parallel": "fsdp", "compile": "auto"})
    monkeypatch.setattr(ranks, "num_ranks", lambda: 2)
    assert sharding.settle(config).training.compile == "off"
