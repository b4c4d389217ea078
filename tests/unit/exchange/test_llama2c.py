"""Tests `.bin` files against their layout, which is written here with struct, independent of the module."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from random_models import random_model
from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.llama2c import HEADER_BYTES, Version, largest_group, quantize, read_bin, write_bin

CONFIG = ModelConfig(
    vocab_size=48, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, intermediate_size=80, context_length=16
)
UNTIED = CONFIG.model_copy(update={"tie_embeddings": False})
NUMBERS = (32, 80, 2, 4, 2, 48, 16)


def write(path: Path, model: ForeignModel, version: Version) -> Path:
    with path.open("wb") as file:
        write_bin(file, model, version)
    return path


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("tied", [True, False])
def test_float_versions_are_read_back_bit_for_bit(version: Version, tied: bool, tmp_path: Path) -> None:
    model = random_model(CONFIG.model_copy(update={"tie_embeddings": tied}))
    read = read_bin(write(tmp_path / "model.bin", model, version))
    assert read.config.model_copy(update={"multiple_of": CONFIG.multiple_of}) == model.config
    assert list(read.tensors) != []
    assert read.tensors.keys() == model.tensors.keys()
    assert all((read.tensors[name] == tensor).all() for name, tensor in model.tensors.items())


def test_version_0_has_the_order_of_llama2c(tmp_path: Path) -> None:
    """The order is header, embedding, then each kind of tensor for all layers; query rows are interleaved."""
    model = random_model(CONFIG)
    content = write(tmp_path / "model.bin", model, 0).read_bytes()
    assert struct.unpack_from("<7i", content) == NUMBERS
    floats = np.frombuffer(content, "<f4", offset=28)
    embedding, norms, first_query = floats[: 48 * 32], floats[48 * 32 : 48 * 32 + 64], floats[48 * 32 + 64 :]
    assert (embedding == model.tensors["model.embed_tokens.weight"].reshape(-1)).all()
    assert (norms[32:] == model.tensors["model.layers.1.input_layernorm.weight"]).all()
    # Heads of 8 channels: half-split rows 0 and 4 are rotated together, and are adjacent in the file.
    query = model.tensors["model.layers.0.self_attn.q_proj.weight"]
    assert (first_query[:64].reshape(2, 32) == query[[0, 4]]).all()


def test_an_untied_version_0_has_a_negative_vocabulary(tmp_path: Path) -> None:
    content = write(tmp_path / "model.bin", random_model(UNTIED), 0).read_bytes()
    assert struct.unpack_from("<7i", content) == (*NUMBERS[:5], -48, 16)


def test_version_1_has_its_header_and_norms_first(tmp_path: Path) -> None:
    model = random_model(CONFIG)
    content = write(tmp_path / "model.bin", model, 1).read_bytes()
    assert content[:4] == b"24ka"
    assert struct.unpack_from("<i7iB", content, 4) == (1, *NUMBERS, 1)
    assert not any(content[37:HEADER_BYTES])
    first = np.frombuffer(content, "<f4", count=32, offset=HEADER_BYTES)
    assert (first == model.tensors["model.layers.0.input_layernorm.weight"]).all()


def test_version_2_stores_int8_values_before_their_scales(tmp_path: Path) -> None:
    model = random_model(CONFIG)
    content = write(tmp_path / "model.bin", model, 2).read_bytes()
    assert struct.unpack_from("<i7iBi", content, 4) == (2, *NUMBERS, 1, 16)
    start = HEADER_BYTES + 4 * 5 * 32  # five norms of 32
    values = np.frombuffer(content, "i1", count=48 * 32, offset=start).reshape(-1, 16)
    scales = np.frombuffer(content, "<f4", count=48 * 2, offset=start + 48 * 32)
    embedding = model.tensors["model.embed_tokens.weight"].reshape(-1, 16)
    assert (np.abs(values).max(axis=1) == 127).all()
    # The error is half a step of each group, plus the rounding of float32.
    assert (np.abs(values * scales[:, None] - embedding) <= 0.5001 * scales[:, None]).all()
    read = read_bin(tmp_path / "model.bin")
    assert (read.tensors["model.embed_tokens.weight"].reshape(-1, 16) == values * scales[:, None]).all()
    assert (read.tensors["model.norm.weight"] == model.tensors["model.norm.weight"]).all()


def test_groups_divide_every_row() -> None:
    for hidden, inner, group in ((288, 768, 32), (512, 1376, 32), (64, 172, 4), (768, 2048, 64), (66, 99, 1)):
        assert largest_group(CONFIG.model_copy(update={"hidden_size": hidden, "intermediate_size": inner})) == group


def test_a_group_of_zeros_stays_zeros() -> None:
    values, scales = quantize(np.array([[0, 0, -2, 1]], dtype=np.float32), 2)
    assert values.tolist() == [[0, 0], [-127, 64]]
    assert scales[0] == 0


@pytest.mark.parametrize(("field", "value"), [("norm_eps", 1e-6), ("rope_theta", 500_000.0)])
def test_other_constants_than_those_of_the_c_programs_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"the model has {field} {value}"):
        write_bin(io.BytesIO(), random_model(CONFIG.model_copy(update={field: value})), 0)


def damage(content: bytes, offset: int, number: int) -> bytes:
    return content[:offset] + struct.pack("<i", number) + content[offset + 4 :]


@pytest.mark.parametrize(
    ("offset", "number", "message"),
    [
        (0, -1, "dim is -1, expected at least 1"),
        (8, 0, "n_layers is 0"),
        (8, 2**31 - 1, "n_layers 2147483647"),
        (12, 5, "hidden_size 32 is not divisible by num_heads 5"),
        (24, 2**31 - 1, "context_length is 2147483647, expected at most 131072"),
        (20, 49, "it was cut off, or is not a llama2.c model"),
    ],
)
def test_version_0_damage_names_file_and_field(offset: int, number: int, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.bin", random_model(CONFIG), 0)
    path.write_bytes(damage(path.read_bytes(), offset, number))
    with pytest.raises(FormatError) as caught:
        read_bin(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "number", "message"),
    [
        (4, 3, "version is 3, expected 1 or 2"),
        (36, 7, "shared_classifier is 7, expected 0 or 1"),
        (37, 0, "group_size is 0, expected at least 1"),
        (37, 7, "group_size is 7, which does not divide every matrix"),
        (37, 8, "it was cut off, or is not a llama2.c model"),
    ],
)
def test_version_2_damage_names_file_and_field(offset: int, number: int, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.bin", random_model(CONFIG), 2)
    path.write_bytes(damage(path.read_bytes(), offset, number))
    with pytest.raises(FormatError, match=message):
        read_bin(path)


def test_a_file_too_short_for_a_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="has 0 bytes, expected a llama2.c header of at least 28"):
        read_bin(path)
    path.write_bytes(b"24ka" + bytes(100))
    with pytest.raises(FormatError, match="has 104 bytes, expected a header of 256"):
        read_bin(path)
