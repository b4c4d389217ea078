"""Tests GGUF models written and read back, and files that tinyllm's Llama cannot represent."""

import dataclasses
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from random_models import save_gguf
from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError
from tinyllm.exchange import gguf_file
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.gguf import FILE_TYPES, export_notes, modelfile, read_gguf, write_gguf
from tinyllm.exchange.gguf_blocks import TensorType
from tinyllm.exchange.gguf_file import ValueType
from tinyllm.exchange.gguf_writer import write_contents
from tinyllm.exchange.layout import GGUF, to_interleaved
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.proto_writer import write_model_proto

Metadata = dict[str, tuple[ValueType, object]]


@pytest.fixture
def rewrite(tmp_path: Path, model: ForeignModel) -> Callable[..., Path]:
    """Writes `model` with changed metadata (None removes a key) and added or replaced tensors."""

    def rewrite(metadata: Metadata | None = None, **tensors: np.ndarray) -> Path:
        path = save_gguf(tmp_path / "model.gguf", model)
        content = path.read_bytes()
        contents = gguf_file.read_contents(io.BytesIO(content), path)
        kept: Metadata = {key: (value_type(key, value), value) for key, value in contents.metadata.items()}
        kept |= metadata or {}
        stored = {
            name: gguf_file.read_tensor(io.BytesIO(content), entry, path) for name, entry in contents.tensors.items()
        }
        lines = [(name, values, TensorType.F32) for name, values in (stored | tensors).items()]
        with path.open("wb") as file:
            write_contents(file, {key: value for key, value in kept.items() if value[1] is not None}, lines)
        return path

    return rewrite


def value_type(key: str, value: object) -> ValueType:
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, str | list):
        return ValueType.STRING
    if isinstance(value, np.ndarray):
        return ValueType.FLOAT32 if value.dtype.kind == "f" else ValueType.INT32
    return ValueType.FLOAT32 if isinstance(value, float) else ValueType.UINT32


@pytest.mark.parametrize("tied", [True, False])
def test_float32_is_read_back_bit_for_bit(tied: bool, model: ForeignModel, tmp_path: Path) -> None:
    tensors = {name: values for name, values in model.tensors.items() if not tied or name != "lm_head.weight"}
    config = model.config.model_copy(update={"tie_embeddings": tied, "norm_eps": 1e-6, "rope_theta": 5e5})
    read = read_gguf(save_gguf(tmp_path / "model.gguf", ForeignModel(config, tensors, model.tokenizer, "")))
    assert read.config.model_copy(update={"multiple_of": config.multiple_of}) == config
    assert list(read.tensors) == list(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(read.tensors[name], values)
    assert read.source == "GGUF version 3 (F32)"


@pytest.mark.parametrize(("type", "largest"), [("F16", 2**-10), ("BF16", 2**-7), ("Q8_0", 2**-6)])
def test_other_types_are_close_and_norms_exact(type: str, largest: float, model: ForeignModel, tmp_path: Path) -> None:
    read = read_gguf(save_gguf(tmp_path / "model.gguf", model, TensorType[type]))
    for name, values in model.tensors.items():
        tolerance = 0 if values.ndim == 1 else largest * np.abs(values).max()
        assert np.abs(read.tensors[name] - values).max() <= tolerance, name


def test_the_tokenizer_is_read_back(model: ForeignModel, tokenizer: Tokenizer, tmp_path: Path) -> None:
    read = read_gguf(save_gguf(tmp_path / "model.gguf", model)).tokenizer
    assert read is not None
    assert read.fingerprint == tokenizer.fingerprint
    assert read.proto == tokenizer.proto
    assert (read.bos_id, read.eos_id, read.pad_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)


def test_query_rows_are_interleaved_in_the_file(model: ForeignModel, tmp_path: Path) -> None:
    content = save_gguf(tmp_path / "model.gguf", model).read_bytes()
    ours = model.tensors["model.layers.1.self_attn.k_proj.weight"]
    entry = gguf_file.read_contents(io.BytesIO(content), tmp_path).tensors["blk.1.attn_k.weight"]
    stored = gguf_file.read_tensor(io.BytesIO(content), entry, tmp_path)
    np.testing.assert_array_equal(stored, to_interleaved(ours, model.config.num_kv_heads))
    assert not np.array_equal(stored, ours)


def test_rows_without_whole_blocks_stay_float16(model: ForeignModel, tmp_path: Path) -> None:
    path = save_gguf(tmp_path / "model.gguf", model, TensorType.Q8_0)
    with path.open("rb") as file:
        entries = gguf_file.read_contents(file, path).tensors
    assert entries["blk.0.ffn_down.weight"].type == TensorType.F16
    assert entries["blk.0.ffn_up.weight"].type == TensorType.Q8_0
    note, *_ = export_notes(model, TensorType.Q8_0)
    assert note.startswith("2 tensors stay F16, because rows of 48 are not whole Q8_0 blocks of 32")


@pytest.mark.parametrize("removes", [True, False])
def test_a_tokenizer_that_differs_in_llama_cpp_is_noted(removes: bool, model: ForeignModel) -> None:
    assert model.tokenizer is not None
    proto = write_model_proto(model.tokenizer.pieces, unk_id=0, bos_id=1, eos_id=2, remove_extra_whitespaces=removes)
    notes = export_notes(dataclasses.replace(model, tokenizer=Tokenizer.from_bytes(proto, "")), TensorType.F32)
    assert any("keeps runs of spaces" in note for note in notes) == removes


def test_a_number_too_large_for_float16_is_refused_with_its_tensor(model: ForeignModel) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    large = dataclasses.replace(model, tensors=model.tensors | {name: model.tensors[name] * 1e6})
    with pytest.raises(InputError, match=r"blk.0.ffn_up.weight cannot be written as F16: .* choose F32 or BF16"):
        write_gguf(io.BytesIO(), large, TensorType.F16, "large")


def test_a_model_without_a_tokenizer_is_not_written(model: ForeignModel) -> None:
    with pytest.raises(InputError, match="random has no tokenizer"):
        write_gguf(io.BytesIO(), dataclasses.replace(model, tokenizer=None), TensorType.F32, "bare")


def test_every_type_has_a_file_type_number(model: ForeignModel, tmp_path: Path) -> None:
    for type, number in FILE_TYPES.items():
        path = save_gguf(tmp_path / "model.gguf", model, type)
        with path.open("rb") as file:
            assert gguf_file.read_contents(file, path).metadata["general.file_type"] == number


REFUSED: dict[str, tuple[Metadata, str]] = {
    "architecture": ({"general.architecture": (ValueType.STRING, "qwen2")}, "is 'qwen2', expected 'llama'"),
    "rope scaling": ({"llama.rope.scaling.type": (ValueType.STRING, "yarn")}, "llama.rope.scaling.type is 'yarn'"),
    "scaling factor": (
        {"llama.rope.scaling.factor": (ValueType.FLOAT32, -4.0)},
        "llama.rope.scaling.factor is -4.0, expected a number above 0",
    ),
    "experts": ({"llama.expert_count": (ValueType.UINT32, 8)}, "llama.expert_count is 8, expected 0"),
    "head size": ({"llama.attention.key_length": (ValueType.UINT32, 128)}, "dimension_count is 16, expected 128"),
    "partial rotation": ({"llama.rope.dimension_count": (ValueType.UINT32, 8)}, "dimension_count is 8, expected 16"),
    "unknown key": ({"llama.logit_scale": (ValueType.FLOAT32, 2.0)}, "llama.logit_scale is 2.0, which tinyllm"),
    "missing number": ({"llama.block_count": (ValueType.UINT32, None)}, "llama.block_count is None, expected a whole"),
    "number of a kind": ({"llama.block_count": (ValueType.FLOAT32, 2.0)}, "llama.block_count is 2.0, expected a whole"),
    "many layers": ({"llama.block_count": (ValueType.UINT32, 2**32 - 1)}, "num_layers is 4294967295, but there are"),
    "long context": ({"llama.context_length": (ValueType.UINT32, 2**30)}, "context_length is 1073741824, expected at"),
    "heads": ({"llama.attention.head_count": (ValueType.UINT32, 5)}, "not divisible by num_heads 5"),
    "epsilon": ({"llama.attention.layer_norm_rms_epsilon": (ValueType.FLOAT32, float("nan"))}, "norm_eps is nan"),
    "width": ({"llama.feed_forward_length": (ValueType.UINT32, 64)}, "misshaped: model.layers.0.mlp.gate_proj.weight"),
    "other tokenizer": ({"tokenizer.ggml.model": (ValueType.STRING, "bert")}, "is 'bert', expected 'llama' or 'gpt2'"),
    "other words": (
        {"tokenizer.ggml.model": (ValueType.STRING, "gpt2"), "tokenizer.ggml.pre": (ValueType.STRING, "qwen2")},
        "tokenizer.ggml.pre is 'qwen2'; tinyllm reads gpt-2, smollm, llama-bpe",
    ),
    "no merges": (
        {"tokenizer.ggml.model": (ValueType.STRING, "gpt2"), "tokenizer.ggml.pre": (ValueType.STRING, "gpt-2")},
        "token_type of id 3 is 6, expected 1 to 5",
    ),
    "few tokens": (
        {
            "tokenizer.ggml.tokens": (ValueType.STRING, ["<unk>"]),
            "tokenizer.ggml.scores": (ValueType.FLOAT32, [0.0]),
            "tokenizer.ggml.token_type": (ValueType.INT32, [2]),
        },
        "eos_token_id is 2, expected an id from 0 to 0",
    ),
    "no tokens": ({"tokenizer.ggml.tokens": (ValueType.STRING, None)}, "tokens is not an array of strings"),
    "few scores": ({"tokenizer.ggml.scores": (ValueType.FLOAT32, [0.0])}, "scores is not an array of 320 float32"),
    "type of a token": ({"tokenizer.ggml.token_type": (ValueType.INT32, [9] * 320)}, "token_type of id 0 is 9"),
    "ordinary BOS": ({"tokenizer.ggml.bos_token_id": (ValueType.UINT32, 300)}, "a token of type NORMAL, expected CON"),
    "flag": ({"tokenizer.ggml.add_space_prefix": (ValueType.UINT32, 1)}, "add_space_prefix is 1, expected true or"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_settings_are_refused_by_name(case: str, rewrite: Callable[..., Path]) -> None:
    metadata, message = REFUSED[case]
    with pytest.raises(FormatError, match=message):
        read_gguf(rewrite(metadata))


def test_tensors_are_matched_strictly(rewrite: Callable[..., Path]) -> None:
    with pytest.raises(FormatError, match=r"unexpected: blk.0.attn_q.gain; misshaped: model.norm.weight is \[3\]"):
        read_gguf(
            rewrite(**{"blk.0.attn_q.gain": np.ones(64, np.float32), "output_norm.weight": np.ones(3, np.float32)})
        )
    with pytest.raises(FormatError, match=r"missing: model.layers.0.self_attn.k_proj.bias"):
        read_gguf(rewrite(**{"blk.0.attn_q.bias": np.ones(64, np.float32)}))


@pytest.mark.parametrize(
    ("divisors", "message"),
    [([1, 2, 1, 2, 1, 2, 1, 2], "is not a scaling of Llama 3 with"), ([1, 2, 3], r"is \[3\], expected \[8\]")],
)
def test_divisors_of_no_known_scaling_are_refused(
    divisors: list[int], message: str, rewrite: Callable[..., Path]
) -> None:
    with pytest.raises(FormatError, match=f"rope_freqs.weight {message}"):
        read_gguf(rewrite(**{"rope_freqs.weight": np.array(divisors, np.float32)}))
    with pytest.raises(FormatError, match=r"rope_freqs.weight beside rope.scaling.factor"):
        read_gguf(
            rewrite(
                {"llama.rope.scaling.factor": (ValueType.FLOAT32, 4.0)}, **{"rope_freqs.weight": np.ones(8, np.float32)}
            )
        )


def test_infinite_weights_are_refused_without_a_warning(rewrite: Callable[..., Path]) -> None:
    with pytest.raises(FormatError, match=r"model.norm.weight has 1 of 64 values that are not finite"):
        read_gguf(rewrite(**{"output_norm.weight": np.array([np.inf] + [1.0] * 63, np.float32)}))


def test_an_unknown_token_of_type_control_is_read(rewrite: Callable[..., Path], tokenizer: Tokenizer) -> None:
    """Converters from Hugging Face directories write it so."""
    types = [3 if id == 0 else int(piece.type) for id, piece in enumerate(tokenizer.pieces)]
    read = read_gguf(rewrite({"tokenizer.ggml.token_type": (ValueType.INT32, types)})).tokenizer
    assert read is not None
    assert read.fingerprint == tokenizer.fingerprint


def test_a_file_may_have_no_tokenizer(rewrite: Callable[..., Path]) -> None:
    assert read_gguf(rewrite({"tokenizer.ggml.model": (ValueType.STRING, "none")})).tokenizer is None


def test_all_names_are_converted_back(model: ForeignModel) -> None:
    for name in model.tensors:
        assert GGUF.to_hugging_face(GGUF.from_hugging_face(name)) == name


def test_the_modelfile_names_file_and_context() -> None:
    text = modelfile("story.gguf", ModelConfig(vocab_size=8, hidden_size=8, num_heads=2, context_length=77))
    assert "FROM ./story.gguf\n" in text
    assert "PARAMETER num_ctx 77\n" in text


def test_an_absurd_count_is_refused_at_once(tmp_path: Path) -> None:
    """A count of 2^60 values in a file of 43 bytes would keep a reader busy for years."""
    path = tmp_path / "small.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60) + bytes(19))
    with pytest.raises(FormatError, match="the number of metadata values is 1152921504606846976, expected at most 1"):
        read_gguf(path)


def integers(values: list[int]) -> tuple[ValueType, object]:
    return ValueType.INT32, values


def ends(eos: int | None, eot: int | None = None, eom: int | None = None) -> Metadata:
    named = {"eos": eos, "eot": eot, "eom": eom}
    return {f"tokenizer.ggml.{name}_token_id": (ValueType.UINT32, id) for name, id in named.items()}


def read_rules(path: Path) -> Tokenizer:
    tokenizer = read_gguf(path).tokenizer
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (ends(2), frozenset({2})),
        (ends(300), frozenset({300})),
        (ends(2, 300), frozenset({2, 300})),
        (ends(2, 300, 301), frozenset({2, 300, 301})),
        (ends(2**32 - 1, 300), frozenset({300})),
        (ends(None), frozenset({2})),
    ],
)
def test_end_tokens_are_kept(
    metadata: Metadata, expected: frozenset[int], rewrite: Callable[..., Path], tmp_path: Path
) -> None:
    """A file without these keys means 2, the default of llama.cpp."""
    model = read_gguf(rewrite(metadata))
    assert model.end_ids == expected
    assert read_rules(save_gguf(tmp_path / "again.gguf", model)).end_ids == expected


def test_a_prompt_without_bos_is_kept(rewrite: Callable[..., Path], tmp_path: Path) -> None:
    model = read_gguf(rewrite({"tokenizer.ggml.add_bos_token": (ValueType.BOOL, False)}))
    assert not read_rules(save_gguf(tmp_path / "again.gguf", model)).begins_with_bos
    assert read_rules(rewrite({"tokenizer.ggml.add_bos_token": (ValueType.BOOL, None)})).begins_with_bos


def with_last_pieces(model: ForeignModel, **texts: int) -> Metadata:
    """The metadata of a vocabulary that ends with `texts`, text -> type."""
    assert model.tokenizer is not None
    pieces = [(piece.text, int(piece.type)) for piece in model.tokenizer.pieces]
    pieces[len(pieces) - len(texts) :] = list(texts.items())
    return {
        "tokenizer.ggml.tokens": (ValueType.STRING, [text for text, _ in pieces]),
        "tokenizer.ggml.token_type": integers([type for _, type in pieces]),
    }


def test_unused_rows_decode_to_no_text(rewrite: Callable[..., Path], model: ForeignModel) -> None:
    tokenizer = read_rules(rewrite(with_last_pieces(model, **{"[PAD318]": 5, "[PAD319]": 5})))
    assert tokenizer.decode([*tokenizer.encode("the fox"), 318, 319]) == "the fox"
    assert 319 not in tokenizer.encode("[PAD319]")


def test_an_unused_piece_that_could_occur_is_named(rewrite: Callable[..., Path], model: ForeignModel) -> None:
    with pytest.raises(FormatError, match=r"'ttt' \(id 319\) is unused, but made of other tokens, .* as normal \(1\)"):
        read_gguf(rewrite(with_last_pieces(model, tt=1, ttt=5)))


def test_user_defined_pieces_are_cut_out_first(
    rewrite: Callable[..., Path], model: ForeignModel, tmp_path: Path
) -> None:
    """A space precedes each section, as in llama.cpp; a control piece is not part of a text."""
    read = read_gguf(rewrite(with_last_pieces(model, **{"<c>": 3, "<x>": 4})))
    for tokenizer in (read.tokenizer, read_rules(save_gguf(tmp_path / "again.gguf", read))):
        assert tokenizer is not None
        fox, red = tokenizer.encode("fox"), tokenizer.encode("red")
        assert tokenizer.encode("fox<x>red<x>") == [*fox, 319, *red, 319]
        assert 318 not in tokenizer.encode("<c>red")
        assert tokenizer.encode("<c>red", allow_special=True) == [318, *red]
        assert tokenizer.decode([*fox, 319, *red]) == "fox<x> red"
