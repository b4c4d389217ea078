"""Hostile files in a sharded directory with a tokenizer.json alone; test_hostile_files has the other readers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from fuzz import run_mutants

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(make_model_dir: Callable[..., Path]) -> Path:
    """A directory as others write them: two shards, and no tokenizer.model."""
    path = make_model_dir()
    tensors = load_file(path / "model.safetensors")
    names = sorted(tensors)
    parts = dict(zip(SHARDS, (names[::2], names[1::2]), strict=True))
    for shard, part in parts.items():
        save_file({name: tensors[name] for name in part}, path / shard)
    weight_map = {name: shard for shard, part in parts.items() for name in part}
    (path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    for name in ("model.safetensors", "tokenizer.model", "manifest.json"):
        (path / name).unlink()
    return path


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damaged", [INDEX, SHARDS[1], "tokenizer.json", "tokenizer_config.json"])
def test_damaged_copies_are_refused_or_whole(damaged: str, count: int, sharded: Path) -> None:
    outcome = run_mutants("tinyllm.exchange.huggingface:read_hugging_face", sharded, count, damaged=damaged)
    print(f"{damaged}: {outcome.refused} refused, {outcome.read} read")
    assert outcome.refused > count // 3
