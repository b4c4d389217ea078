"""stories260K generates llama2.c's own text to the letter, from the file and from every lossless copy."""

from pathlib import Path

import pytest

import tinyllm
from reference_data import STORIES_260K, greedy_text
from tinyllm import loading
from tinyllm.exchange.write import EXACT, TARGETS, export_model

LOSSLESS = [name for name, target in TARGETS.items() if target.tolerance == EXACT]


def greedy(model: Path) -> str:
    (generation,) = tinyllm.load(model, device="cpu").generate("", temperature=0, max_new_tokens=200)
    return generation.text


def test_the_bin_file_gives_the_text() -> None:
    assert greedy(STORIES_260K / "stories260K.bin") == greedy_text()


@pytest.mark.parametrize("target", LOSSLESS)
def test_every_lossless_copy_gives_the_text(target: str, tmp_path: Path) -> None:
    """`safetensors` is what `tinyllm import` writes."""
    export = export_model(loading.read_model(STORIES_260K / "stories260K.bin"), target, tmp_path / "copy")
    assert export.largest_difference == 0
    assert greedy(tmp_path / "copy") == greedy_text()


def test_version_0_comes_back_byte_for_byte(tmp_path: Path) -> None:
    """Through a model directory, so that every tensor was renamed, permuted and stored in between."""
    export_model(loading.read_model(STORIES_260K / "stories260K.bin"), "safetensors", tmp_path / "directory")
    export_model(loading.read_model(tmp_path / "directory"), "llama2c", tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == (STORIES_260K / "stories260K.bin").read_bytes()
    assert (tmp_path / "tokenizer.bin").read_bytes() == (STORIES_260K / "tok512.bin").read_bytes()


def test_the_bin_tokenizer_serves_as_well() -> None:
    model = tinyllm.load(STORIES_260K / "stories260K.bin", tokenizer=STORIES_260K / "tok512.bin", device="cpu")
    (generation,) = model.generate("", temperature=0, max_new_tokens=200)
    assert generation.text == greedy_text()
