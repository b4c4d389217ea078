"""transformers loads our model directories without an export step and computes the same logits."""

import inspect
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tinyllm.config import ModelConfig
from tinyllm.model.kv_cache import KVCache
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import load_model, read_config

HEADS = {"multi-head": 4, "grouped": 2, "multi-query": 1}


def load_theirs(path: Path) -> transformers.LlamaForCausalLM:
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    assert isinstance(model, transformers.LlamaForCausalLM)
    model.train(False)
    return model


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("num_kv_heads", HEADS.values(), ids=HEADS)
@torch.inference_mode()
def test_logits_are_theirs(make_model_dir: Callable[..., Path], num_kv_heads: int, tie_embeddings: bool) -> None:
    path = make_model_dir(num_kv_heads=num_kv_heads, tie_embeddings=tie_embeddings, rope_theta=5_000.0)
    ours, _ = load_model(path)
    tokens = torch.randint(0, ours.config.vocab_size, (2, 32))
    expected = load_theirs(path)(tokens).logits
    assert expected.abs().max() > 1  # the comparison is of real numbers
    torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", HEADS.values(), ids=HEADS)
@torch.inference_mode()
def test_logits_are_theirs_through_both_caches(make_model_dir: Callable[..., Path], num_kv_heads: int) -> None:
    path = make_model_dir(num_kv_heads=num_kv_heads)
    ours, theirs = load_model(path)[0], load_theirs(path)
    tokens = torch.randint(0, ours.config.vocab_size, (2, 32))
    cache, their_cache = KVCache(ours.config, batch_size=2), transformers.DynamicCache(config=theirs.config)
    # transformers 5.24 renamed the argument.
    name = next(name for name in ("cache", "past_key_values") if name in inspect.signature(theirs.forward).parameters)
    whole = ours(tokens)
    for start, end in [(0, 20), *((t, t + 1) for t in range(20, 32))]:
        logits = ours(tokens[:, start:end], cache)
        torch.testing.assert_close(logits, whole[:, start:end], rtol=0, atol=1e-5)
        expected = theirs(tokens[:, start:end], use_cache=True, **{name: their_cache}).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_positions_far_out_are_theirs() -> None:
    """Rounding of the rotary frequencies grows with the position."""
    config = ModelConfig(vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, context_length=2048)
    shape: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **shape,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )
    )
    theirs.train(False)
    ours = Transformer(config).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.tie_weights()
    tokens = torch.randint(0, 64, (1, 2048))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)


def test_training_gradients_are_theirs(make_model_dir: Callable[..., Path]) -> None:
    path = make_model_dir()
    ours, theirs = load_model(path)[0], load_theirs(path)
    tokens = torch.randint(0, ours.config.vocab_size, (2, 32))
    logits = ours(tokens)
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
    theirs(tokens, labels=tokens).loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


def test_transformers_loads_the_directory_without_a_warning(
    make_model_dir: Callable[..., Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_model_dir()
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        model, tokenizer = load_theirs(path), transformers.AutoTokenizer.from_pretrained(path)
        ids = tokenizer("Once upon a time", return_tensors="pt")
        model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert [record.getMessage() for record in caplog.records] == []
    assert ids["input_ids"][0].tolist() == load_model(path)[1].encode("Once upon a time", bos=True)


def test_greedy_text_is_that_of_their_generate(make_model_dir: Callable[..., Path]) -> None:
    from tinyllm.loading import load_with_torch

    path = make_model_dir()
    ours, theirs = load_with_torch(path, device="cpu"), load_theirs(path)
    prompt = torch.tensor([ours.tokenizer.encode("the red fox", bos=True)])
    expected = theirs.generate(prompt, max_new_tokens=15, do_sample=False)[0, prompt.shape[1] :].tolist()
    assert ours.generate("the red fox", max_new_tokens=15, temperature=0)[0].token_ids == expected


def test_a_directory_that_transformers_saved_is_read(make_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    """A foreign directory: no manifest, their config, our tokenizer file beside it."""
    path = make_model_dir(rope_theta=5_000.0)
    theirs = load_theirs(path)
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.model").write_bytes((path / "tokenizer.model").read_bytes())
    model, _ = load_model(tmp_path / "theirs")
    assert model.config == read_config(path)
    tokens = torch.randint(0, model.config.vocab_size, (1, 8))
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)


def test_the_config_says_rope_and_dtype_in_both_versions_words(make_model_dir: Callable[..., Path]) -> None:
    config = json.loads((make_model_dir(rope_theta=5_000.0) / "config.json").read_bytes())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5_000.0
    assert config["torch_dtype"] == config["dtype"] == "float32"


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("engine", ["cpu", "torch"])
@torch.inference_mode()
def test_logits_and_hidden_states_of_a_loaded_model_are_theirs(
    make_model_dir: Callable[..., Path], engine: str, tie_embeddings: bool
) -> None:
    """Every layer in their order, the last one after the final norm."""
    import tinyllm
    from tinyllm.loading import load_with_torch

    path = make_model_dir(num_layers=3, tie_embeddings=tie_embeddings)
    model = tinyllm.load(path, device="cpu") if engine == "cpu" else load_with_torch(path, device="cpu")
    ids = model.tokenizer.encode("Once upon a time the fox saw", bos=True)
    theirs = load_theirs(path)(torch.tensor([ids]), output_hidden_states=True)
    expected = torch.stack(theirs.hidden_states)[:, 0].numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(model.logits(ids), theirs.logits[0].numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.hidden_states(ids, None), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.embed("Once upon a time the fox saw"), expected[-1, 1:].mean(0), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_scores_are_their_loss(make_model_dir: Callable[..., Path]) -> None:
    import tinyllm

    path = make_model_dir()
    score = tinyllm.load(path, device="cpu").score("Once upon a time the fox")
    ids = torch.tensor([load_model(path)[1].encode("Once upon a time the fox", bos=True)])
    assert -score.log_probability / len(score.token_ids) == pytest.approx(
        load_theirs(path)(ids, labels=ids).loss.item()
    )
