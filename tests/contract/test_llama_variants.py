"""Options of the Llama family against transformers: the same logits and greedy tokens, and exports that lose nothing.

transformers makes each model, so the truth is its own file. `attention_bias`, `mlp_bias`, an explicit `head_dim`, the
scalings of the rotary frequencies, and all of them together.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tinyllm.api import train
from tinyllm.config import ModelConfig, WeightsKind
from tinyllm.errors import InputError
from tinyllm.exchange.gguf import read_gguf
from tinyllm.exchange.write import export_model
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.loading import load_with_torch, read_model
from tinyllm.model.kv_cache import KVCache
from tinyllm.model_dir import load_model, open_tensors, read_config
from tinyllm.tokenizer.codec import Tokenizer

CONTEXT, TOLERANCE = 64, 1e-5
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "head size": {"head_dim": 14},
    "attention bias": {"attention_bias": True},
    "mlp bias": {"mlp_bias": True},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
    "llama3": {"rope_parameters": LLAMA3},
}
VARIANTS["all"] = VARIANTS["head size"] | VARIANTS["attention bias"] | VARIANTS["mlp bias"] | VARIANTS["llama3"]
FIELDS: dict[str, dict[str, Any]] = {
    "head size": {"head_size": 14},
    "attention bias": {"attention_bias": True},
    "mlp bias": {"mlp_bias": True},
    "linear": {"rope_scaling": "linear", "rope_factor": 4.0},
    "dynamic": {"rope_scaling": "dynamic", "rope_factor": 2.0},
    "llama3": {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 32},
}
PROMPT = "the red fox"


def build_theirs(variant: str, vocab_size: int) -> transformers.LlamaForCausalLM:
    """A model whose biases and gains are random too, so that none can be forgotten."""
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        intermediate_size=50,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        **(shape | json.loads(json.dumps(VARIANTS[variant]))),
    )
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = name.endswith("norm.weight")
            parameter.copy_(torch.rand_like(parameter) + 0.5 if gain else 0.12 * torch.randn_like(parameter))
    model.train(False)
    return model


@pytest.fixture
def make_theirs(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Callable[[str], Path]:
    """Saves a model of transformers with the tiny tokenizer beside it."""

    def make(variant: str) -> Path:
        build_theirs(variant, tiny_tokenizer.vocab_size).save_pretrained(tmp_path / "theirs")
        (tmp_path / "theirs" / "tokenizer.model").write_bytes(tiny_tokenizer.model_proto)
        return tmp_path / "theirs"

    return make


def random_tokens(vocab_size: int) -> torch.Tensor:
    return torch.randint(0, vocab_size, (2, CONTEXT), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_logits_are_theirs_with_and_without_a_cache(make_theirs: Callable[[str], Path], variant: str) -> None:
    path = make_theirs(variant)
    ours, theirs = load_model(path)[0], transformers.AutoModelForCausalLM.from_pretrained(path)
    tokens, cache = random_tokens(ours.config.vocab_size), KVCache(ours.config, batch_size=2)
    expected = theirs(tokens).logits
    assert expected.std() > 0.5  # the comparison is of real numbers
    torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=TOLERANCE)
    parts = [ours(tokens[:, start:end], cache) for start, end in [(0, 20), *((t, t + 1) for t in range(20, CONTEXT))]]
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_each_variant_changes_the_logits(variant: str, tiny_tokenizer: Tokenizer) -> None:
    """A variant that computes the same as a plain model proves nothing; dynamic scaling begins past the context."""
    theirs = build_theirs(variant, tiny_tokenizer.vocab_size)
    tokens = random_tokens(tiny_tokenizer.vocab_size)
    before = theirs(tokens).logits
    theirs.config.rope_parameters = {"rope_type": "default", "rope_theta": 10_000.0}
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(theirs.config)
    for name, parameter in theirs.named_parameters():
        if name.endswith(".bias"):
            parameter.zero_()
    changed = bool((theirs(tokens).logits - before).abs().max() > 0.01)
    assert changed == (variant not in ("dynamic", "head size"))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_the_cpu_engine_computes_their_logits(
    make_theirs: Callable[[str], Path], variant: str, compiled_kernels: Callable[[WeightsKind], Kernels]
) -> None:
    path = make_theirs(variant)
    theirs, config = transformers.AutoModelForCausalLM.from_pretrained(path), read_config(path)
    tokens = random_tokens(config.vocab_size)
    engine = CpuEngine(config, PackedWeights(config, open_tensors(path), "fp32"), compiled_kernels("fp32"))
    slots, text = engine.open(2), tokens.numpy()
    logits = [engine.read(slots, text[:, :20]).copy()]
    logits += [engine.read(slots, text[:, t : t + 1]).copy() for t in range(20, CONTEXT)]
    expected = theirs(tokens).logits[:, 19:].numpy()
    np.testing.assert_allclose(np.stack(logits, 1), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_are_theirs(make_theirs: Callable[[str], Path], variant: str) -> None:
    path = make_theirs(variant)
    ours, theirs = load_with_torch(path, device="cpu"), transformers.AutoModelForCausalLM.from_pretrained(path)
    prompt = torch.tensor([ours.tokenizer.encode(PROMPT, bos=True)])
    expected = theirs.generate(prompt, max_new_tokens=24, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
    (found,) = ours.generate(PROMPT, max_new_tokens=24, temperature=0)
    assert found.token_ids == expected.tolist()[: len(found.token_ids)]
    assert len(found.token_ids) > 8


@pytest.mark.parametrize(
    "variant", [each if each == "all" else pytest.param(each, marks=pytest.mark.slow) for each in VARIANTS]
)
def test_training_begins_from_their_directory(
    make_theirs: Callable[[str], Path], variant: str, tiny_shards: Path, tmp_path: Path
) -> None:
    """The shape comes from the directory; the first evaluation is that of the model itself, and updates lower it."""
    path = make_theirs(variant)
    training = {"init_from": str(path), "sequence_length": 16, "batch_size": 8, "eval_batches": 2, "eval_interval": 4}
    sections: dict[str, Any] = {"training": training | {"device": "cpu"}, "sample": {"num_samples": 0}}
    before = train(tiny_shards, tmp_path / "a", **sections | {"training": sections["training"] | {"eval_only": True}})
    outcome = train(tiny_shards, tmp_path / "b", schedule={"num_steps": 4, "peak": 1e-2}, **sections)
    assert before.evaluation is not None
    assert outcome.model is not None
    assert outcome.model.loss < before.evaluation.loss - 0.1
    tuned = read_config(tmp_path / "b" / "model")
    assert tuned.model_copy(update={"multiple_of": 32}) == read_config(path)


@pytest.mark.parametrize("variant", FIELDS)
def test_the_config_names_the_variant(make_theirs: Callable[[str], Path], variant: str) -> None:
    config = read_config(make_theirs(variant))
    assert {name: getattr(config, name) for name in FIELDS[variant]} == FIELDS[variant]


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_an_export_to_hugging_face_is_theirs(make_theirs: Callable[[str], Path], variant: str, tmp_path: Path) -> None:
    path = make_theirs(variant)
    exported = export_model(read_model(path), "safetensors", tmp_path / "ours")
    assert exported.largest_difference == 0
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(each)(random_tokens(320)).logits
        for each in (path, tmp_path / "ours")
    )
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gguf_keeps_every_variant(make_theirs: Callable[[str], Path], variant: str, tmp_path: Path) -> None:
    model = read_model(make_theirs(variant))
    exported = export_model(model, "gguf", tmp_path / "model.gguf")
    assert exported.largest_difference == 0
    read = read_gguf(tmp_path / "model.gguf")
    unstored = {"rope_scaling": "none", "rope_factor": 1.0} if variant == "dynamic" else {}
    assert read.config == model.config.model_copy(update=unstored)
    assert any("dynamic RoPE scaling" in note for note in exported.notes) == (variant == "dynamic")


@pytest.mark.parametrize("target", ["llama2c", "llama2c-v1", "llama2c-q8", "pt"])
@pytest.mark.parametrize("variant", [variant for variant in FIELDS if variant != "dynamic"])
def test_llama2c_refuses_options_that_it_cannot_store(
    make_theirs: Callable[[str], Path], variant: str, target: str, tmp_path: Path
) -> None:
    model = read_model(make_theirs(variant))
    field = next(iter(FIELDS[variant]))
    with pytest.raises(InputError, match=f"the model has {field}.*export it as gguf or safetensors"):
        export_model(model, target, tmp_path / "model.bin")


def test_frequencies_of_meta_are_read_without_our_keys(tmp_path: Path, make_theirs: Callable[[str], Path]) -> None:
    """llama.cpp's converter writes the divisors alone."""
    from tinyllm.exchange import gguf_rope

    model = read_model(make_theirs("llama3"))
    config = ModelConfig(**(model.config.model_dump() | {"rope_original_context": 8192, "rope_theta": 5e5}))
    plain = ModelConfig(**(config.model_dump() | {"rope_scaling": "none", "rope_factor": 1.0}))
    read = gguf_rope.read_llama3(gguf_rope.divisors(config), plain, {}, tmp_path)
    assert (read.rope_scaling, read.rope_factor, read.rope_original_context) == ("llama3", 8.0, 8192)
