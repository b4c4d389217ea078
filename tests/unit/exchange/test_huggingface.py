"""Tests foreign Hugging Face directories: shards, extras, refusals. tests/contract compares with transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.huggingface import read_hugging_face
from tinyllm.tokenizer.files import hugging_face_files

Tensors = dict[str, np.ndarray]


def config_json(model: ForeignModel, **changes: Any) -> str:
    config = model.config
    content = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
    }
    return json.dumps(content | changes)


@pytest.fixture
def directory(tmp_path: Path, model: ForeignModel) -> Path:
    (tmp_path / "config.json").write_text(config_json(model))
    save_file(model.tensors, tmp_path / "model.safetensors")
    return tmp_path


def shard(directory: Path, *parts: Tensors, weight_map: dict[str, str] | None = None) -> None:
    """Replaces the single weight file by `parts` as shards, with their index."""
    (directory / "model.safetensors").unlink(missing_ok=True)
    found: dict[str, Any] = {}
    for number, part in enumerate(parts, start=1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file(part, directory / name)
        found |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": found if weight_map is None else weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def halves(tensors: Tensors) -> tuple[Tensors, Tensors]:
    names = sorted(tensors)
    return {name: tensors[name] for name in names[::2]}, {name: tensors[name] for name in names[1::2]}


def test_a_single_file_and_shards_hold_the_same_model(directory: Path, model: ForeignModel) -> None:
    single = read_hugging_face(directory)
    shard(directory, *halves(model.tensors))
    sharded = read_hugging_face(directory)
    assert single.config == sharded.config
    assert single.source == "Hugging Face directory (F32)"
    for name, values in model.tensors.items():
        np.testing.assert_array_equal(single.tensors[name], values)
        np.testing.assert_array_equal(sharded.tensors[name], values)


def test_the_tokenizer_is_model_or_json_or_none(directory: Path, model: ForeignModel) -> None:
    assert model.tokenizer is not None
    assert read_hugging_face(directory).tokenizer is None
    files = hugging_face_files(model.tokenizer, context_length=32)
    for name in ("tokenizer_config.json", "tokenizer.json", "tokenizer.model"):
        (directory / name).write_bytes(files[name])
        read = read_hugging_face(directory).tokenizer
        if name != "tokenizer_config.json":
            assert read is not None
            assert read.encode("the red ball", bos=True) == model.tokenizer.encode("the red ball", bos=True)


def test_rotary_buffers_and_the_copy_of_tied_embeddings_are_dropped(directory: Path, model: ForeignModel) -> None:
    embedding = model.tensors["model.embed_tokens.weight"]
    extras = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32), "lm_head.weight": embedding}
    save_file(model.tensors | extras, directory / "model.safetensors")
    (directory / "config.json").write_text(config_json(model, tie_word_embeddings=True))
    assert set(read_hugging_face(directory).tensors) == set(model.tensors) - {"lm_head.weight"}


def test_tied_embeddings_with_another_output_are_refused(directory: Path, model: ForeignModel) -> None:
    (directory / "config.json").write_text(config_json(model, tie_word_embeddings=True))
    with pytest.raises(FormatError, match=r"tie_word_embeddings is true, but lm_head.weight is not model.embed_tokens"):
        read_hugging_face(directory)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "linear": ({"rope_scaling": {"type": "linear"}}, "rope_scaling of type linear has no factor"),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": -2.0}}, "factor: Input should be greater than 0"),
    "llama3": (
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}},
        "rope_parameters of type llama3 has no low_freq_factor, high_freq_factor",
    ),
    "yarn": (
        {"rope_scaling": {"type": "yarn", "factor": 2.0}},
        r"\(yarn\); the types default, linear, dynamic, llama3",
    ),
    "by layer": ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, r"frequencies \(by layer\)"),
    "partial": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; only 1 is read"),
    "bias": ({"attention_bias": True}, "missing: model.layers.0.self_attn.q_proj.bias"),
    "mlp bias": ({"mlp_bias": True}, "missing: model.layers.0.mlp.gate_proj.bias"),
    "head size": ({"head_dim": 128}, "misshaped: model.layers.0.self_attn.q_proj.weight"),
    "odd head size": ({"head_dim": 13}, "head_size is 13 channels a head"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "architecture": ({"model_type": "mistral"}, "model_type is 'mistral'"),
    "layers": ({"num_hidden_layers": 3}, "missing: model.layers.2.input_layernorm.weight"),
    "many layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
    "context": ({"max_position_embeddings": 2**20}, "max_position_embeddings is 1048576, expected at most 131072"),
    "size of a kind": ({"hidden_size": [64]}, "hidden_size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_settings_are_refused_by_name(case: str, directory: Path, model: ForeignModel) -> None:
    changes, message = REFUSED[case]
    (directory / "config.json").write_text(config_json(model, **changes))
    with pytest.raises(FormatError, match=message):
        read_hugging_face(directory)


@pytest.mark.parametrize(
    "place", ["../outside.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "..", 5, "x"]
)
def test_the_index_stays_in_its_directory(place: object, directory: Path, model: ForeignModel) -> None:
    save_file(model.tensors, directory.parent / "outside.safetensors")
    shard(directory, weight_map=dict.fromkeys(model.tensors, place))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"expected a .safetensors file of the same directory"):
        read_hugging_face(directory)


def test_index_and_shards_must_agree(directory: Path, model: ForeignModel) -> None:
    first, second = halves(model.tensors)
    listed = dict.fromkeys(model.tensors, "model-00001-of-00001.safetensors")
    shard(directory, first, weight_map=listed)
    with pytest.raises(FormatError, match=r"\w+ is in the index, but not in the file"):
        read_hugging_face(directory)
    shard(directory, model.tensors, weight_map={name: listed[name] for name in first})
    with pytest.raises(FormatError, match=r"\w+ is in the file, but not in the index"):
        read_hugging_face(directory)
    for name in ("absent.safetensors", "x" * 300 + ".safetensors", "\0.safetensors"):
        shard(directory, weight_map=dict.fromkeys(second, name))
        with pytest.raises(FormatError, match="is missing from the directory"):
            read_hugging_face(directory)


def test_a_tokenizer_of_another_size_is_refused(directory: Path, model: ForeignModel) -> None:
    assert model.tokenizer is not None
    (directory / "tokenizer.model").write_bytes(model.tokenizer.model_proto)
    smaller = {name: values[:300] if len(values) == 320 else values for name, values in model.tensors.items()}
    save_file(smaller, directory / "model.safetensors")
    (directory / "config.json").write_text(config_json(model, vocab_size=300))
    with pytest.raises(FormatError, match="the model has 300 tokens, the tokenizer has 320"):
        read_hugging_face(directory)


def test_pickled_weights_are_not_read(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"has neither model.safetensors nor model.safetensors.index.json"):
        read_hugging_face(directory)


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config.json"):
        read_hugging_face(tmp_path)


def test_end_tokens_outside_the_vocabulary_are_named(directory: Path, model: ForeignModel) -> None:
    size = model.config.vocab_size
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, size, size + 7]}))
    found = read_hugging_face(directory)
    assert found.end_ids == frozenset({2})
    ids = f"{size}, {size + 7}"
    assert found.notes == (
        f"{directory}: eos_token_id {ids} is not among the {size} tokens of the model, so it ends no text",
    )
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert read_hugging_face(directory).notes == ()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_pickled_weights_are_named_with_their_remedy(directory: Path, name: str) -> None:
    (directory / "model.safetensors").rename(directory / name)
    with pytest.raises(InputError, match=f"{name} is a pickle, which may run code; load it with transformers and save"):
        read_hugging_face(directory)
