"""Tests that formats are recognised by content, and that each model gets its own tokenizer or none."""

import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from random_models import random_model
from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError, MismatchError
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.llama2c import write_bin
from tinyllm.exchange.llama2c_pt import write_pt
from tinyllm.exchange.read import find_tokenizer, read_model, read_weights
from tinyllm.exchange.write import TARGETS, FileTarget, export_model
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model


@pytest.fixture(scope="session")
def tied(mild_model: ForeignModel) -> ForeignModel:
    """A model with tied embeddings, which every format can store."""
    tensors = {name: tensor for name, tensor in mild_model.tensors.items() if name != "lm_head.weight"}
    config = mild_model.config.model_copy(update={"tie_embeddings": True})
    return ForeignModel(config, tensors, mild_model.tokenizer, "random")


@pytest.mark.parametrize("target", TARGETS)
def test_every_format_is_recognised_under_any_name(target: str, tied: ForeignModel, tmp_path: Path) -> None:
    export_model(tied, target, tmp_path / "model.txt")
    read = read_model(tmp_path / "model.txt")
    assert read.config.model_copy(update={"multiple_of": tied.config.multiple_of}) == tied.config
    assert read.tokenizer is not None
    assert tied.tokenizer is not None
    assert read.tokenizer.encode("the fox saw a ball") == tied.tokenizer.encode("the fox saw a ball")


def model_of_shape(tokenizer: Tokenizer, **shape: Any) -> ForeignModel:
    sizes: dict[str, Any] = {
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "intermediate_size": 32,
        "context_length": 8,
    }
    config = ModelConfig(vocab_size=tokenizer.vocab_size, **(sizes | shape))
    return random_model(config, tokenizer, 0.1)


FIRST_BYTE_0X80 = (128, 384, 640, 896)
FEW_WIDTHS = (32, 96, *FIRST_BYTE_0X80, 1024)
FILE_TARGETS = {name: target for name, target in TARGETS.items() if isinstance(target, FileTarget)}


@pytest.mark.parametrize("widths", [FEW_WIDTHS, pytest.param(range(32, 1025, 32), marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_file_of_every_width_is_read_back(
    target: str, widths: Sequence[int], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """A llama2.c file of version 0 begins with the width; some widths begin with the byte 0x80, like a pickle."""
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model_proto)
    for width in widths:
        model = model_of_shape(tokenizer, hidden_size=width)
        with (tmp_path / "model").open("wb") as file:
            FILE_TARGETS[target].write(file, model)
        assert read_model(tmp_path / "model").config.hidden_size == width


@pytest.mark.parametrize("target", ["safetensors", "safetensors-fp16", "safetensors-bf16"])
def test_a_directory_with_a_width_of_128_is_read_back(target: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    export_model(model_of_shape(tokenizer, hidden_size=128), target, tmp_path / "model")
    assert read_model(tmp_path / "model").config.hidden_size == 128


@pytest.mark.parametrize("shape", [{"hidden_size": 1408}, {"hidden_size": 32, "num_layers": 123}])
def test_a_header_that_looks_like_another_format_is_read(
    shape: dict[str, int], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """1408 begins like a pickle of protocol 5; 123 layers put a "{" at the place of a safetensors header."""
    with (tmp_path / "model.bin").open("wb") as file:
        write_bin(file, model_of_shape(tokenizer, **shape), 0)
    config = read_weights(tmp_path / "model.bin").config
    assert {field: getattr(config, field) for field in shape} == shape


def test_the_named_tokenizer_has_priority_and_must_fit(tied: ForeignModel, tmp_path: Path) -> None:
    export_model(tied, "gguf", tmp_path / "model.gguf")
    other = tmp_path / "other.model"
    other.write_bytes(train_model(["another text altogether: red, blue, green"] * 5, 280))
    with pytest.raises(MismatchError, match="has 320 tokens, but .*other.model has 280"):
        read_model(tmp_path / "model.gguf", other)


def test_tokenizers_next_to_a_model_are_tried_by_size_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = tmp_path / "a" / "model.bin", tmp_path / "a"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no tok320.model, .* in .*a; name it: `tokenizer=FILE`"):
        find_tokenizer(model, 320)
    (tmp_path / "tokenizer.model").touch()
    assert find_tokenizer(model, 320) == Path("tokenizer.model")
    for name in ("tokenizer.bin", "tokenizer.model", "tok320.bin", "tok320.model"):
        (folder / name).touch()
        assert find_tokenizer(model, 320) == folder / name


def test_other_kinds_of_files_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(InputError, match="file does not exist"):
        read_weights(path)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"model": 1}, protocol))
        with pytest.raises(FormatError, match="is a bare pickle, which could run anything"):
            read_weights(path)
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{}              ")
    with pytest.raises(FormatError, match="is a safetensors file; give its directory"):
        read_weights(path)
    path.write_bytes(tokenizer.model_proto)
    with pytest.raises(FormatError, match=r"is not GGUF, .* read as a .bin of version 0: .* max_seq_len is 0"):
        read_weights(path)


def test_a_checkpoint_of_the_tutorial_finds_the_tokenizer_of_its_run(
    tied: ForeignModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`output/ckpt.pt` lies next to the run's model; the tutorial's tokenizers lie in `data/` next to `output/`."""
    monkeypatch.chdir(tmp_path)
    assert tied.tokenizer is not None
    for places in (("output/model/tokenizer.model", "data/tok320.model"), ("data/tok320.model",)):
        (tmp_path / "output").mkdir()
        with (tmp_path / "output" / "ckpt.pt").open("wb") as file:
            write_pt(file, tied)
        for place in places:
            (tmp_path / place).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / place).write_bytes(tied.tokenizer.model_proto)
        for path in (Path("output/ckpt.pt"), tmp_path / "output" / "ckpt.pt"):
            found = read_model(path).tokenizer
            assert found is not None
            assert found.name.endswith(places[0])
        shutil.rmtree(tmp_path / "output")
