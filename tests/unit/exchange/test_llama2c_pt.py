"""Tests `.pt` checkpoints as llama2.c, torch.compile and a course write them, and that no pickled code is run."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from random_models import random_model
from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.layout import LLAMA2C
from tinyllm.exchange.llama2c_pt import read_pt, write_pt
from tinyllm.model.size import parameter_shapes

CONFIG = ModelConfig(vocab_size=48, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, context_length=16)


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A written checkpoint, and its content loaded by PyTorch."""
    path = tmp_path / "model.pt"
    with path.open("wb") as file:
        write_pt(file, random_model(CONFIG))
    return path, torch.load(path, weights_only=True)


def replace_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            assert not name.endswith("data.pkl") or old in content
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)


def same(path: Path) -> bool:
    read, written = read_pt(path), random_model(CONFIG)
    assert read.config == written.config
    assert list(read.tensors) == list(written.tensors)
    return all((read.tensors[name] == tensor).all() for name, tensor in written.tensors.items())


def test_a_model_is_read_back(checkpoint: tuple[Path, dict[str, Any]]) -> None:
    assert same(checkpoint[0])


def test_all_keys_that_llama2c_reads_are_written(checkpoint: tuple[Path, dict[str, Any]]) -> None:
    """The keys are those of its `ModelArgs`, `sample.py` and state dict, with both names of the tied pair."""
    _, content = checkpoint
    fields = {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "hidden_dim"}
    assert content["model_args"].keys() == fields | {"multiple_of", "norm_eps", "max_seq_len", "dropout"}
    assert content["config"]["vocab_source"] == "custom"
    expected = {LLAMA2C.from_hugging_face(name) for name in parameter_shapes(CONFIG)} | {"output.weight"}
    assert content["model"].keys() == expected


VARIANTS = ("compiled", "wrapped", "course", "with tables", "without hidden_dim")
OTHER_NUMBERS = ("half precision", "double precision", "NumPy sizes", "NumPy numbers", "NumPy 1 numbers")


@pytest.mark.parametrize("kind", [*VARIANTS, *OTHER_NUMBERS])
def test_variants_are_read(kind: str, checkpoint: tuple[Path, dict[str, Any]]) -> None:
    path, content = checkpoint
    state, args = content["model"], content["model_args"]
    extras: dict[str, Any] = {"iter_num": 7}
    course = {"wq": "compute_query", "wk": "compute_key", "wv": "compute_value", "wo": "compute_output"}
    if kind == "compiled":
        state = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
    elif kind == "wrapped":
        state = {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
    elif kind == "double precision":
        state = {name: tensor.double() for name, tensor in state.items()}
    elif kind.endswith("numbers"):
        extras = {"best_val_loss": np.float32(1.5), "iter_num": np.int64(7), "done": np.bool_(True)}
    elif kind == "NumPy sizes":
        args = {name: np.float64(value) if name == "norm_eps" else np.int64(value) for name, value in args.items()}
    elif kind == "course":
        state = {".".join(course.get(part, part) for part in name.split(".")): t for name, t in state.items()}
    elif kind == "with tables":
        state["freqs_cos"] = torch.zeros(16, 4)
    elif kind == "without hidden_dim":
        del args["hidden_dim"], args["norm_eps"]
    else:
        state = {name: tensor.half() for name, tensor in state.items()}
    torch.save({"model": state, "model_args": args, "optimizer": {"state": {}}, **extras}, path)
    if kind == "NumPy 1 numbers":
        replace_in_pickle(path, b"numpy._core.multiarray", b"numpy.core.multiarray")
    if kind == "half precision":
        exact = random_model(CONFIG).tensors["model.norm.weight"]
        assert (read_pt(path).tensors["model.norm.weight"] == exact.astype(np.float16)).all()
    else:
        assert same(path)


def test_an_untied_output_projection_is_read_but_not_written(checkpoint: tuple[Path, dict[str, Any]]) -> None:
    path, content = checkpoint
    content["model"]["output.weight"] = torch.ones(48, 32)
    torch.save(content, path)
    read = read_pt(path)
    assert not read.config.tie_embeddings
    assert (read.tensors["lm_head.weight"] == 1).all()
    with path.open("wb") as file, pytest.raises(InputError, match="ties both"):
        write_pt(file, read)


def test_another_rotary_base_is_not_written(tmp_path: Path) -> None:
    model = random_model(CONFIG.model_copy(update={"rope_theta": 500_000.0}))
    with (tmp_path / "x.pt").open("wb") as file, pytest.raises(InputError, match="rope_theta 500000"):
        write_pt(file, model)


def test_names_are_matched_strictly(checkpoint: tuple[Path, dict[str, Any]]) -> None:
    path, content = checkpoint
    del content["model"]["norm.weight"]
    content["model"]["norm.bias"] = torch.zeros(32)
    torch.save(content, path)
    with pytest.raises(FormatError, match=r"missing: model\.norm\.weight; unexpected: norm\.bias"):
        read_pt(path)


class Evil:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil-was-here"),)


def test_a_pickle_that_would_run_code_is_refused_with_its_global(
    checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, content = checkpoint
    torch.save({**content, "extra": Evil()}, path)
    with pytest.raises(FormatError, match=r"needs 'pathlib.* Path.touch'|needs '__builtin__ getattr'"):
        read_pt(path)
    assert not (tmp_path / "evil-was-here").exists()


def test_numbers_repeated_along_an_axis_are_not_allocated(checkpoint: tuple[Path, dict[str, Any]]) -> None:
    path, content = checkpoint
    content["model"]["tok_embeddings.weight"] = torch.zeros(1).expand(2**40)
    torch.save(content, path)
    with pytest.raises(FormatError, match="but its tensors claim 43980466"):
        read_pt(path)


def test_archives_not_written_by_torch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", pickle.dumps({}) + bytes(10_000))
    with pytest.raises(FormatError, match="is compressed, expected stored"):
        read_pt(path)
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(FormatError, match="not a whole zip archive"):
        read_pt(path)


def test_a_damaged_record_is_found_by_its_checksum(checkpoint: tuple[Path, dict[str, Any]]) -> None:
    path, content = checkpoint
    raw = bytearray(path.read_bytes())
    weights = content["model"]["tok_embeddings.weight"].numpy().tobytes()
    raw[bytes(raw).index(weights) + 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="CRC-32 differs"):
        read_pt(path)
