"""Formats are known by content, and each model gets the tokenizer that belongs to it, or none."""

import pickle
from pathlib import Path

import pytest

from tinyllm.errors import FormatError, InputError, MismatchError
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.read import find_tokenizer, read_model, read_weights
from tinyllm.exchange.write import TARGETS, export_model
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model


@pytest.fixture(scope="session")
def tied(mild_model: ForeignModel) -> ForeignModel:
    """A model without an output projection of its own, so that every format can say it."""
    tensors = {name: tensor for name, tensor in mild_model.tensors.items() if name != "lm_head.weight"}
    config = mild_model.config.model_copy(update={"tie_embeddings": True})
    return ForeignModel(config, tensors, mild_model.tokenizer, "random")


@pytest.mark.parametrize("target", TARGETS)
def test_every_format_is_known_under_any_name(target: str, tied: ForeignModel, tmp_path: Path) -> None:
    export_model(tied, target, tmp_path / "model.txt")
    read = read_model(tmp_path / "model.txt")
    assert read.config.model_copy(update={"multiple_of": tied.config.multiple_of}) == tied.config
    assert read.tokenizer is not None
    assert tied.tokenizer is not None
    assert read.tokenizer.encode("the fox saw a ball") == tied.tokenizer.encode("the fox saw a ball")


def test_the_named_tokenizer_wins_and_must_fit(tied: ForeignModel, tmp_path: Path) -> None:
    export_model(tied, "gguf", tmp_path / "model.gguf")
    other = tmp_path / "other.model"
    other.write_bytes(train_model(["another text altogether: red, blue, green"] * 5, 280))
    with pytest.raises(MismatchError, match="knows 320 tokens, and .*other.model has 280"):
        read_model(tmp_path / "model.gguf", other)


def test_tokenizers_beside_a_model_are_tried_by_size_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = tmp_path / "a" / "model.bin", tmp_path / "a"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no tok320.model, .* in .*a; name it: --tokenizer FILE"):
        find_tokenizer(model, 320)
    (tmp_path / "tokenizer.model").touch()
    assert find_tokenizer(model, 320) == Path("tokenizer.model")
    for name in ("tokenizer.bin", "tokenizer.model", "tok320.bin", "tok320.model"):
        (folder / name).touch()
        assert find_tokenizer(model, 320) == folder / name


def test_other_files_are_named_for_what_they_are(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(InputError, match="file does not exist"):
        read_weights(path)
    path.write_bytes(pickle.dumps({"model": 1}))
    with pytest.raises(FormatError, match="is a bare pickle, which could run anything"):
        read_weights(path)
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{}              ")
    with pytest.raises(FormatError, match="is a safetensors file; give the directory"):
        read_weights(path)
    path.write_bytes(tokenizer.model_proto)
    with pytest.raises(FormatError, match=r"is no GGUF, .* read as a .bin of version 0: .* max_seq_len is 0"):
        read_weights(path)
