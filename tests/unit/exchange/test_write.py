"""Tests that an export that differs from the model, or cannot be written, is an error and leaves no files."""

from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from tinyllm.errors import ArtifactError, InputError, MismatchError, UsageError
from tinyllm.exchange import write
from tinyllm.exchange.build import logits_of_fixed_prompt
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.write import TARGETS, FileTarget, export_model
from tinyllm.model_dir import load_model


def test_exact_targets_are_equal_and_others_close(mild_model: ForeignModel, tmp_path: Path) -> None:
    for name, target in TARGETS.items():
        if name == "pt":  # cannot store an untied output projection
            continue
        (tmp_path / name).mkdir()
        export = export_model(mild_model, name, tmp_path / name / "out")
        assert export.largest_difference <= target.tolerance * export.logit_range
        assert (export.largest_difference > 0) == (target.tolerance > 0)
        assert export.num_bytes > 0


def test_a_copy_with_other_logits_is_not_kept(
    mild_model: ForeignModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses a writer that swaps query and key rows: names, shapes and sizes are right, but the model differs."""
    target = TARGETS["llama2c"]
    assert isinstance(target, FileTarget)
    honest = target.write

    def careless(file: IO[bytes], model: ForeignModel) -> None:
        tensors = {name: tensor[::-1].copy() if "q_proj" in name else tensor for name, tensor in model.tensors.items()}
        honest(file, replace(model, tensors=tensors))

    monkeypatch.setitem(write.TARGETS, "llama2c", replace(target, write=careless))
    with pytest.raises(
        MismatchError, match=r"model.bin was not written: read back, its logits differ .* may differ by 0"
    ):
        export_model(mild_model, "llama2c", tmp_path / "model.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_differs_is_not_kept(
    mild_model: ForeignModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(write.TARGETS, "safetensors-bf16", replace(TARGETS["safetensors-bf16"], tolerance=1e-9))
    with pytest.raises(MismatchError, match="out was not written"):
        export_model(mild_model, "safetensors-bf16", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("target", "has_advice"), [("gguf-q8", True), ("gguf", False)])
def test_a_model_that_needs_more_bits_gets_other_formats(
    mild_model: ForeignModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, has_advice: bool
) -> None:
    numbers = logits_of_fixed_prompt(mild_model)
    answers = iter([numbers, numbers + np.ptp(numbers)])
    monkeypatch.setattr(write, "logits_of_fixed_prompt", lambda _: next(answers))
    with pytest.raises(MismatchError, match="was not written") as caught:
        export_model(mild_model, target, tmp_path / "model.gguf")
    assert ("choose html-bf16, gguf-bf16" in str(caught.value)) == has_advice


def test_a_model_that_the_format_cannot_store_leaves_no_file(mild_model: ForeignModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="output projection is not its embedding"):
        export_model(mild_model, "pt", tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_another_tokenizer_in_the_folder_is_not_overwritten(mild_model: ForeignModel, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.bin").write_bytes(b"somebody else's")
    with pytest.raises(ArtifactError, match="tokenizer.bin exists already"):
        export_model(mild_model, "llama2c", tmp_path / "model.bin")
    with pytest.raises(ArtifactError, match="tokenizer.bin exists already, with another content"):
        export_model(mild_model, "llama2c", tmp_path / "model.bin", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.bin"]


def test_overwrite_replaces_only_the_companion_of_the_replaced_export(mild_model: ForeignModel, tmp_path: Path) -> None:
    model, companion = tmp_path / "model.gguf", tmp_path / "Modelfile"
    export_model(mild_model, "gguf", model)
    companion.write_text("my notes")
    with pytest.raises(ArtifactError, match="will not replace .*Modelfile: it is not a Modelfile"):
        export_model(mild_model, "gguf", model, with_modelfile=True, overwrite=True)
    companion.write_text("FROM llama3")
    with pytest.raises(ArtifactError, match="Modelfile exists already, with another content"):
        export_model(mild_model, "gguf", tmp_path / "new.gguf", with_modelfile=True, overwrite=True)
    assert companion.read_text() == "FROM llama3"
    export_model(mild_model, "gguf", model, with_modelfile=True, overwrite=True)
    assert "FROM ./model.gguf" in companion.read_text()


def test_the_same_tokenizer_in_the_folder_is_accepted(mild_model: ForeignModel, tmp_path: Path) -> None:
    for target in ("llama2c", "llama2c-v1"):
        export_model(mild_model, target, tmp_path / target)
    assert {path.name for path in tmp_path.iterdir()} == {"llama2c", "llama2c-v1", "tokenizer.bin"}


@pytest.mark.parametrize(
    ("target", "name", "error", "message"),
    [
        ("onnx", "x", UsageError, "target onnx is not a format; choose llama2c, llama2c-v1"),
        ("gguf", "", ArtifactError, "is there and is not a file"),
        ("llama2c", "tokenizer.bin", InputError, "is the name of the tokenizer.bin that is written with the model"),
        ("gguf", "file/x", ArtifactError, "is a file, not a directory"),
    ],
)
def test_impossible_exports_are_refused_before_any_work(
    target: str, name: str, error: type[Exception], message: str, mild_model: ForeignModel, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        export_model(mild_model, target, tmp_path / name)


def test_a_modelfile_requires_gguf(mild_model: ForeignModel, tmp_path: Path) -> None:
    export = export_model(mild_model, "gguf-q8", tmp_path / "model.gguf", with_modelfile=True)
    assert [path.name for path in export.beside] == ["Modelfile"]
    assert "FROM ./model.gguf" in (tmp_path / "Modelfile").read_text()
    with pytest.raises(UsageError, match="with_modelfile does not fit .*it requires `target=gguf`"):
        export_model(mild_model, "pt", tmp_path / "model.pt", with_modelfile=True)


def test_an_exported_directory_is_a_model_directory(mild_model: ForeignModel, tmp_path: Path) -> None:
    export_model(mild_model, "safetensors", tmp_path / "out")
    loaded, tokenizer = load_model(tmp_path / "out")
    assert (loaded.state_dict()["model.norm.weight"].numpy() == mild_model.tensors["model.norm.weight"]).all()
    assert mild_model.tokenizer is not None
    assert tokenizer.fingerprint == mild_model.tokenizer.fingerprint


def test_rules_that_a_tokenizer_bin_loses_are_noted(mild_model: ForeignModel, tmp_path: Path) -> None:
    """The tokenizer keeps runs of spaces, which a tokenizer.bin without a token of two spaces cannot store."""
    (note,) = export_model(mild_model, "llama2c", tmp_path / "model.bin").notes
    assert "cannot store that runs of spaces are kept" in note


def test_rules_that_a_format_loses_are_noted(mild_model: ForeignModel, tmp_path: Path) -> None:
    assert mild_model.tokenizer is not None
    ruled = replace(mild_model, tokenizer=mild_model.tokenizer.with_rules(adds_bos=False, end_ids=[7, 2]))
    notes = "\n".join(export_model(ruled, "llama2c", tmp_path / "model.bin").notes)
    assert "which tokens end a text: the model's are 2, 7, read back they are 1, 2" in notes
    assert "that a prompt begins without BOS" in notes
    for target in ("gguf", "safetensors"):
        assert export_model(ruled, target, tmp_path / target).notes == []
