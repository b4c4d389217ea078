"""The engine in a page is ours: equal greedy texts, logits and window for the same stored weights, run by Node."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from page_engine import GREEDY, ask, make_page, needs_node
from random_models import random_model
from reference_data import STORIES_260K, greedy_text
from tinyllm.config import ModelConfig, SamplingConfig
from tinyllm.exchange.build import build_transformer
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.generation import sampling
from tinyllm.loading import load_with_torch, read_model
from tinyllm.model_dir import bundled_model
from tinyllm.tokenizer.codec import Tokenizer

pytestmark = needs_node
PROMPTS = ["Once upon a time", "The cat", "One day, a big"]
SHAPE: dict[str, Any] = {"hidden_size": 48, "num_layers": 2, "num_heads": 4, "intermediate_size": 40}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped queries": {"num_kv_heads": 2},
    "one key head": {"num_kv_heads": 1},
    "head size": {"head_size": 14},
    "odd width": {"intermediate_size": 37},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "untied": {"tie_embeddings": False},
    "epsilon and base": {"norm_eps": 1e-3, "rope_theta": 500.0},
    "linear": {"rope_scaling": "linear", "rope_factor": 4.0},
    "dynamic": {"rope_scaling": "dynamic", "rope_factor": 2.0},
    "llama3": {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 16},
}
VARIANTS["all"] = VARIANTS["grouped queries"] | VARIANTS["head size"] | VARIANTS["biases"] | VARIANTS["untied"]
VARIANTS["all"] |= VARIANTS["llama3"]


def greedy_request(ids: list[int], **settings: int) -> dict[str, Any]:
    return {"op": "generate", "ids": ids, "settings": GREEDY | settings}


@pytest.mark.parametrize("target", ["html", "html-bf16"])
@pytest.mark.parametrize("path", [bundled_model(), STORIES_260K / "stories260K.bin"], ids=["bundled", "260K"])
def test_greedy_texts_are_ours(path: Path, target: str, tmp_path: Path) -> None:
    """The page is read back as float32 for the torch engine, so both have the same stored weights."""
    page = make_page(read_model(path), tmp_path, target)
    ours = load_with_torch(page, device="cpu")
    expected = [ours.generate(prompt, max_new_tokens=100, temperature=0)[0] for prompt in PROMPTS]
    prompts = ask(page, [{"op": "prompt", "text": prompt} for prompt in PROMPTS])
    texts = ask(page, [greedy_request(ids) for ids in prompts])
    for prompt, found, text in zip(prompts, texts, expected, strict=True):
        assert prompt == ours.tokenizer.encode(text.prompt, bos=True)
        assert (found["ids"], found["text"], found["reason"]) == (text.token_ids, text.text, text.finish_reason)
        assert np.log(found["probabilities"]) == pytest.approx(text.log_probabilities, abs=1e-4)
    assert sum(len(found["ids"]) for found in texts) >= 250


def test_the_text_of_stories260k_is_that_of_llama2c(tmp_path: Path) -> None:
    """Weights of bfloat16 are close enough to float32 for the first 25 tokens of llama2.c's own greedy text."""
    page = make_page(read_model(STORIES_260K / "stories260K.bin"), tmp_path, "html-bf16")
    (found,) = ask(page, [greedy_request([1], maxNewTokens=25)])
    assert len(found["text"]) > 40
    assert greedy_text().startswith(found["text"].lstrip())


@pytest.fixture
def make_variant(tiny_tokenizer: Tokenizer) -> Any:
    def make(variant: str, context_length: int = 40) -> ForeignModel:
        fields = SHAPE | {"vocab_size": tiny_tokenizer.vocab_size, "context_length": context_length}
        return random_model(ModelConfig(**(fields | VARIANTS[variant])), tiny_tokenizer, 0.2)

    return make


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_ours_for_every_option(variant: str, make_variant: Any, tmp_path: Path) -> None:
    page = make_page(make_variant(variant), tmp_path)
    stored = read_model(page)
    ids = [1, *range(30, 60)]
    import torch

    with torch.inference_mode():
        expected = build_transformer(stored)(torch.tensor([ids]))[0].numpy()
    (logits,) = ask(page, [{"op": "logits", "ids": ids}])
    assert np.abs(np.array(logits) - expected).max() < 2e-5 * np.ptp(expected)


def test_the_window_slides_as_ours(make_variant: Any, tmp_path: Path) -> None:
    """Three contexts of tokens, at once and in two calls."""
    page = make_page(make_variant("all"), tmp_path)
    ours = load_with_torch(page, device="cpu")
    text = ours.generate([1, 40, 41], max_new_tokens=120, temperature=0)[0]
    whole = greedy_request([1, 40, 41], maxNewTokens=120)
    num_kept = next(place for place in (50, 49, 48) if text.token_ids[place] not in ours.tokenizer.end_ids)
    later = greedy_request([1, 40, 41], maxNewTokens=120 - num_kept) | {"kept": text.token_ids[:num_kept]}
    found, rest = ask(page, [whole, later])
    assert (text.slid, found["ids"]) == (True, text.token_ids)
    assert rest["ids"] == text.token_ids[num_kept:]


@pytest.mark.parametrize("penalty", [1.15, 2.0])
def test_a_text_with_a_repetition_penalty_is_ours(penalty: float, make_variant: Any, tmp_path: Path) -> None:
    """The penalty counts the prompt and all that was drawn, beyond the window too, and in a later call."""
    for model in (read_model(bundled_model()), make_variant("plain")):
        page = make_page(model, tmp_path)
        ours = load_with_torch(page, device="cpu")
        plain, text = (
            ours.generate([1, 40, 41], max_new_tokens=100, temperature=0, repetition_penalty=each)[0]
            for each in (1.0, penalty)
        )
        whole = greedy_request([1, 40, 41])
        whole["settings"] |= {"repetitionPenalty": penalty}
        later = whole | {"kept": text.token_ids[:10]}
        found, rest = ask(page, [whole, later])
        assert found["ids"] == text.token_ids != plain.token_ids
        assert rest["ids"][: len(text.token_ids) - 10] == text.token_ids[10:]


def test_a_rival_is_taken_first(make_variant: Any, tmp_path: Path) -> None:
    page = make_page(make_variant("plain"), tmp_path)
    (greedy,) = ask(page, [greedy_request([1, 40], maxNewTokens=8)])
    assert greedy["rivals"][3][0] == greedy["ids"][3]
    rival = greedy["rivals"][3][1]
    (branch,) = ask(page, [greedy_request([1, 40], maxNewTokens=5) | {"kept": greedy["ids"][:3], "forced": rival}])
    assert branch["ids"][0] == rival
    assert branch["probabilities"][0] < greedy["probabilities"][3]
    (again,) = ask(page, [greedy_request([1, 40, *greedy["ids"][:3], rival], maxNewTokens=4)])
    assert branch["ids"][1:] == again["ids"]


@pytest.mark.parametrize(
    "rules",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 7},
        {"temperature": 1.3, "top_p": 0.6},
        {"temperature": 0.9, "min_p": 0.2},
        {"temperature": 1.1, "top_k": 40, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=lambda rules: " ".join(rules),
)
def test_filters_and_draws_are_ours(rules: dict[str, float], make_variant: Any, tmp_path: Path) -> None:
    """Rows with ties at the limits of top-k and top-p; a token that is kept has the same weight."""
    page = make_page(make_variant("plain"), tmp_path)
    numbers = np.random.default_rng(4)
    rows = np.round(numbers.normal(0, 3, (40, 60)), 1).astype(np.float32)
    config = SamplingConfig(**rules)  # type: ignore[arg-type]
    settings = {
        "temperature": config.temperature,
        "topK": config.top_k,
        "topP": config.top_p,
        "minP": config.min_p,
    }
    weights = ask(page, [{"op": "weights", "logits": row.tolist(), "settings": settings} for row in rows])
    expected = [sampling.filtered_weights(row, config) for row in rows]
    assert np.array(weights) == pytest.approx(np.array(expected), rel=1e-5)
    uniforms = numbers.random(len(rows))
    drawn = ask(
        page,
        [{"op": "pick", "weights": row.tolist(), "uniform": u} for row, u in zip(expected, uniforms, strict=True)],
    )
    assert drawn == [sampling.pick(row, uniform) for row, uniform in zip(expected, uniforms, strict=True)]
