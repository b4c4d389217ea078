"""GGUF against the gguf package of llama.cpp, and a real model through every type.

The package reads only files that we wrote: on a damaged one its reader may never return.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from random_models import save_gguf
from reference_data import STORIES_260K

gguf = pytest.importorskip("gguf")

from tinyllm.exchange.foreign import ForeignModel  # noqa: E402
from tinyllm.exchange.gguf import read_gguf, write_gguf  # noqa: E402
from tinyllm.exchange.gguf_blocks import TensorType, decode, encode  # noqa: E402
from tinyllm.exchange.layout import GGUF, interleave_heads  # noqa: E402
from tinyllm.exchange.llama2c import read_bin  # noqa: E402
from tinyllm.model.transformer import Transformer  # noqa: E402
from tinyllm.tokenizer.codec import Tokenizer  # noqa: E402

WRITTEN = [TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0]


def random_rows() -> np.ndarray:
    """Rows of very different sizes, with zeros and exact halves among them."""
    numbers = np.random.default_rng(5)
    rows = numbers.standard_normal((64, 96)) * 10.0 ** numbers.integers(-6, 4, (64, 1))
    rows[3], rows[4, :32] = 0, np.arange(32) / 2
    return rows.astype(np.float32)


@pytest.mark.parametrize("type", WRITTEN)
def test_encoding_is_bit_for_bit_that_of_llama_cpp(type: TensorType) -> None:
    rows = random_rows()
    theirs = gguf.quants.quantize(rows, gguf.GGMLQuantizationType(type))
    assert encode(rows, type) == theirs.tobytes()


@pytest.mark.parametrize("type", TensorType)
def test_decoding_is_bit_for_bit_that_of_llama_cpp(type: TensorType) -> None:
    theirs = gguf.quants.quantize(random_rows(), gguf.GGMLQuantizationType(type))
    expected = gguf.quants.dequantize(theirs, gguf.GGMLQuantizationType(type))
    np.testing.assert_array_equal(decode(theirs.tobytes(), type), expected.reshape(-1))


@pytest.fixture(scope="module")
def stories() -> ForeignModel:
    """stories260K with its tokenizer."""
    bare = read_bin(STORIES_260K / "stories260K.bin")
    return ForeignModel(bare.config, bare.tensors, Tokenizer.load(STORIES_260K / "tok512.model"), bare.source)


@pytest.mark.parametrize("type", WRITTEN)
def test_the_package_reads_what_we_write(type: TensorType, stories: ForeignModel, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(save_gguf(tmp_path / "model.gguf", stories, type))
    theirs = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    ours = interleave_heads(read_gguf(tmp_path / "model.gguf").tensors, stories.config)
    assert set(theirs) == {GGUF.from_hugging_face(name) for name in ours}
    for name, values in ours.items():
        np.testing.assert_array_equal(theirs[GGUF.from_hugging_face(name)], values)


def test_the_package_finds_the_numbers_and_the_tokenizer(stories: ForeignModel, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(save_gguf(tmp_path / "model.gguf", stories, TensorType.F32))
    found = {name: field.contents() for name, field in reader.fields.items()}
    keys, tokenizer = gguf.Keys, stories.tokenizer
    assert tokenizer is not None
    numbers = {
        keys.LLM.BLOCK_COUNT: 5,
        keys.LLM.CONTEXT_LENGTH: 512,
        keys.LLM.EMBEDDING_LENGTH: 64,
        keys.LLM.FEED_FORWARD_LENGTH: 172,
        keys.LLM.VOCAB_SIZE: 512,
        keys.Attention.HEAD_COUNT: 8,
        keys.Attention.HEAD_COUNT_KV: 4,
        keys.Attention.LAYERNORM_RMS_EPS: float(np.float32(1e-5)),
        keys.Rope.DIMENSION_COUNT: 8,
        keys.Rope.FREQ_BASE: 10_000.0,
    }
    for key, number in numbers.items():
        assert found[key.format(arch="llama")] == number
    assert found[keys.Tokenizer.LIST] == [piece.text for piece in tokenizer.pieces]
    assert found[keys.Tokenizer.SCORES] == [piece.score for piece in tokenizer.pieces]
    assert found[keys.Tokenizer.TOKEN_TYPE] == [piece.type for piece in tokenizer.pieces]
    assert (found[keys.Tokenizer.BOS_ID], found[keys.Tokenizer.EOS_ID], found[keys.Tokenizer.ADD_BOS]) == (1, 2, True)


def test_we_read_what_the_package_writes(stories: ForeignModel, tmp_path: Path) -> None:
    """A file by the package's writer, in its order of keys, with F16 matrices and a tokenizer."""
    assert stories.tokenizer is not None
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    config = stories.config
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.text for piece in stories.tokenizer.pieces])
    writer.add_token_scores([piece.score for piece in stories.tokenizer.pieces])
    writer.add_token_types([int(piece.type) for piece in stories.tokenizer.pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, values in interleave_heads(stories.tensors, config).items():
        stored: np.ndarray[Any, Any] = values.astype(np.float16) if values.ndim > 1 else values
        writer.add_tensor(GGUF.from_hugging_face(name), np.ascontiguousarray(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = read_gguf(tmp_path / "theirs.gguf")
    assert read.config == config
    assert read.tokenizer is not None
    assert read.tokenizer.fingerprint == stories.tokenizer.fingerprint
    for name, values in stories.tensors.items():
        expected = values.astype(np.float16).astype(np.float32) if values.ndim > 1 else values
        np.testing.assert_array_equal(read.tensors[name], expected)


def logits(model: ForeignModel, ids: list[int]) -> torch.Tensor:
    network = Transformer(model.config).eval()
    network.load_state_dict({name: torch.from_numpy(values) for name, values in model.tensors.items()})
    with torch.no_grad():
        found: torch.Tensor = network(torch.tensor([ids]))
    return found


@pytest.mark.parametrize(
    ("type", "largest"),
    [(TensorType.F32, 0.0), (TensorType.F16, 0.05), (TensorType.BF16, 0.3), (TensorType.Q8_0, 0.6)],
)
def test_a_round_trip_keeps_the_logits(type: TensorType, largest: float, stories: ForeignModel, tmp_path: Path) -> None:
    """F32 is exact; other types are within their rounding error (logits lie between -20 and 15)."""
    assert stories.tokenizer is not None
    ids = stories.tokenizer.encode("Once upon a time, there was a little girl named Lily.", bos=True)
    difference = logits(read_gguf(save_gguf(tmp_path / "model.gguf", stories, type)), ids) - logits(stories, ids)
    assert difference.abs().max().item() <= largest


def test_the_same_model_gives_the_same_bytes(stories: ForeignModel) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    write_gguf(first, stories, TensorType.Q8_0, "stories260K")
    write_gguf(second, stories, TensorType.Q8_0, "stories260K")
    assert first.getvalue() == second.getvalue()
