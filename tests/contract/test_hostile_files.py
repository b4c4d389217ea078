"""Hostile files: readers refuse any damage with a named error, in bounded time and memory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import run_mutants
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.tokenizer_bin import tokenizer_to_bin
from tinyllm.exchange.write import TARGETS, export_model
from tinyllm.loading import read_model

READERS = {
    "llama2c": "tinyllm.exchange.llama2c:read_bin",
    "llama2c-v1": "tinyllm.exchange.llama2c:read_bin",
    "llama2c-q8": "tinyllm.exchange.llama2c:read_bin",
    "pt": "tinyllm.exchange.llama2c_pt:read_pt",
    "gguf": "tinyllm.exchange.gguf:read_gguf",
    "gguf-q8": "tinyllm.exchange.gguf:read_gguf",
    "html": "tinyllm.exchange.html.read:read_html",
    "html-bf16": "tinyllm.exchange.html.read:read_html",
    "safetensors": "tinyllm.exchange.huggingface:read_hugging_face",
    "tokenizer.bin": "tinyllm.exchange.tokenizer_bin:read_tokenizer_bin",
    "tokenizer.model": "tinyllm.exchange.tokenizer_source:load_tokenizer",
}
CASES = [
    *((name, "", "mutate") for name in READERS if name != "safetensors"),
    ("pt", "", "mutate_pickle"),
    ("safetensors", "model.safetensors", "mutate"),
    ("safetensors", "config.json", "mutate"),
    ("safetensors", "tokenizer.model", "mutate"),
]


@pytest.fixture
def model(make_model_dir: Callable[..., Path]) -> ForeignModel:
    return read_model(make_model_dir())


def write_original(name: str, model: ForeignModel, folder: Path) -> Path:
    path = folder / "original" / name
    path.parent.mkdir()
    assert model.tokenizer is not None
    if name in TARGETS:
        export_model(model, name, path)
        # A directory without its manifest, which would find the damage before the format's reader.
        if path.is_dir():
            (path / "manifest.json").unlink()
    else:
        path.write_bytes(tokenizer_to_bin(model.tokenizer) if name.endswith(".bin") else model.tokenizer.model_proto)
    return path


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "damaged", "mutator"), CASES)
def test_damaged_copies_are_refused_or_whole(
    name: str, damaged: str, mutator: str, count: int, model: ForeignModel, tmp_path: Path
) -> None:
    original = write_original(name, model, tmp_path)
    outcome = run_mutants(READERS[name], original, count, damaged=damaged, mutator=mutator)
    print(f"{name} {damaged} {mutator}: {outcome.refused} refused, {outcome.read} read")
    assert outcome.refused > count // 3
