"""Scores of texts against the plain definition: one forward pass for each token, and a softmax in float64."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import tinyllm
from tinyllm.config import WeightsKind
from tinyllm.errors import FormatError, InputError, UsageError
from tinyllm.generation.generator import Generator
from tinyllm.generation.scoring import Score, add_up, log_probabilities, windows
from tinyllm.loading import load_with_torch
from tinyllm.model_dir import load_model

TEXT = "Once upon a time the fox saw a red ball."
LONG = " ".join([TEXT] * 6)
LOADERS: dict[str, Callable[[Path], Generator]] = {
    "cpu": lambda path: tinyllm.load(path, device="cpu"),
    "torch": lambda path: load_with_torch(path, device="cpu"),
}


@pytest.fixture(params=LOADERS)
def generator(request: pytest.FixtureRequest, make_model_dir: Callable[..., Path]) -> Generator:
    """A random model with a context of 32 tokens, on each engine."""
    return LOADERS[request.param](make_model_dir())


@torch.inference_mode()
def defined(generator: Generator, text: str) -> list[float]:
    """The log-probability of each token after the tokens that its window holds before it."""
    assert generator.path is not None
    model, tokenizer = load_model(generator.path)
    ids = tokenizer.encode(text, bos=True)
    found = []
    for start, first, end in windows(len(ids) - 1, model.config.context_length):
        for place in range(first, end):
            logits = model(torch.tensor([ids[start : place + 1]]))[0, -1].double()
            found.append(torch.log_softmax(logits, dim=-1)[ids[place + 1]].item())
    return found


@pytest.mark.parametrize("text", [TEXT, LONG, "x"], ids=["short", "windows", "one letter"])
def test_log_probabilities_are_those_of_the_definition(generator: Generator, text: str) -> None:
    score = generator.score(text)
    expected = defined(generator, text)
    assert score.token_ids == generator.tokenizer.encode(text)
    assert score.pieces == [generator.tokenizer.id_to_piece(id) for id in score.token_ids]
    np.testing.assert_allclose(score.log_probabilities, expected, rtol=0, atol=2e-5)
    assert score.log_probability == pytest.approx(sum(expected), abs=1e-3)
    assert score.bits_per_byte == pytest.approx(-sum(expected) / math.log(2) / len(text.encode()), rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-5)


def test_texts_of_a_list_have_the_scores_that_they_have_alone(generator: Generator) -> None:
    texts = [TEXT, LONG, "The owl", "x" * 200, TEXT]
    together, alone = generator.score(texts), [generator.score(text) for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.token_ids, one.num_bytes) == (other.text, other.token_ids, other.num_bytes)
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, rtol=0, atol=2e-5)
    assert generator.score([]) == []


@pytest.mark.parametrize("context", [1, 2, 7, 32])
@pytest.mark.parametrize("num_tokens", [0, 1, 6, 7, 8, 31, 32, 33, 100])
def test_windows_own_each_token_once_with_half_a_context_before_it(num_tokens: int, context: int) -> None:
    found = list(windows(num_tokens, context))
    assert [place for _, first, end in found for place in range(first, end)] == list(range(num_tokens))
    for start, first, end in found:
        assert 0 <= start <= first < end <= min(num_tokens, start + context)
        assert start == 0 or first - start >= context // 2
    if found and num_tokens >= context:
        assert found[-1][2] - found[-1][0] == context, "the last window holds as much context as fits"


@pytest.mark.parametrize("kind", get_args(WeightsKind))
def test_a_score_names_the_weights(make_model_dir: Callable[..., Path], kind: WeightsKind) -> None:
    model = tinyllm.load(make_model_dir(), device="cpu", weights=kind)
    score = model.score(TEXT)
    assert f"{kind} weights" in score.engine
    exact = tinyllm.load(make_model_dir("exact"), device="cpu").score(TEXT)
    assert score.log_probability == pytest.approx(exact.log_probability, rel=0.05)
    assert (score.log_probabilities == exact.log_probabilities) == (kind == "fp32")


def test_texts_that_cannot_be_scored_are_refused(generator: Generator) -> None:
    with pytest.raises(InputError, match="the text has no token to predict"):
        generator.score("")
    with pytest.raises(InputError, match="text 2 of 3 has no token"):
        generator.score(["a", "", "b"])
    with pytest.raises(InputError, match="lone surrogate"):
        generator.score("\ud800")


def test_logits_that_are_not_finite_are_an_error(make_model_dir: Callable[..., Path]) -> None:
    generator = load_with_torch(make_model_dir(), device="cpu")
    with torch.no_grad():
        generator.engine._model.model.norm.weight.fill_(math.nan)  # type: ignore[attr-defined]
    with pytest.raises(FormatError, match="not finite"):
        generator.score(TEXT)


def test_scores_leave_a_half_read_stream_as_it_is(generator: Generator) -> None:
    expected = generator.generate(TEXT, max_new_tokens=40, seed=2)[0].text
    stream = generator.stream(TEXT, max_new_tokens=40, seed=2)
    pieces = [next(stream) for _ in range(3)]
    before = generator.score(LONG).log_probabilities
    generator.hidden_states(TEXT, None)
    pieces += list(stream)
    assert "".join(pieces) == expected
    assert generator.score(LONG).log_probabilities == before


def test_log_probabilities_of_ids_need_no_text(generator: Generator) -> None:
    ids = np.array([1, 5, 7, 9, 11])
    (found,) = log_probabilities(generator.engine, [ids])
    logits = generator.logits([1, 5, 7, 9]).astype(np.float64)
    expected = logits[np.arange(4), ids[1:]] - np.log(np.exp(logits).sum(axis=1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_logits_and_states_have_the_shapes_that_are_documented(generator: Generator) -> None:
    ids = generator.tokenizer.encode("the fox", bos=True)
    config = generator.config
    assert generator.logits("the fox").shape == (len(ids), config.vocab_size)
    assert generator.logits("the fox").dtype == np.float32
    np.testing.assert_array_equal(generator.logits(ids), generator.logits("the fox"))
    states = generator.hidden_states("the fox", None)
    assert states.shape == (config.num_layers + 1, len(ids), config.hidden_size)
    for layer in range(-config.num_layers - 1, config.num_layers + 1):
        np.testing.assert_array_equal(generator.hidden_states(ids, layer), states[layer])


def test_an_embedding_is_the_mean_of_the_last_states_without_bos(generator: Generator) -> None:
    expected = generator.hidden_states("the fox")[1:].mean(axis=0)
    np.testing.assert_allclose(generator.embed("the fox"), expected, rtol=0, atol=1e-5)
    vectors = generator.embed(["the fox", LONG], normalized=True)
    assert vectors.shape == (2, generator.config.hidden_size)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), rtol=0, atol=1e-5)


def test_wrong_questions_are_refused(generator: Generator) -> None:
    with pytest.raises(InputError, match="the text has 80 tokens, but the model's context is 32"):
        generator.logits([1] * 80)
    with pytest.raises(UsageError, match="layer is 3; it can be 0 to 2, or -1 for the last"):
        generator.hidden_states(TEXT, 3)
    with pytest.raises(InputError, match="has no token; give some text"):
        generator.embed(["a", ""])
    with pytest.raises(InputError, match="token id 999 is out of range"):
        generator.logits([999])


def test_figures_of_several_texts_are_those_of_all_their_tokens() -> None:
    scores = [
        Score("ab", [1, 2], ["a", "b"], [-1.0, -2.0], 2, "an engine"),
        Score("cde", [3], ["cde"], [-0.5], 3, "an engine"),
    ]
    total = add_up(scores)
    assert (total.num_bytes, total.num_tokens, total.log_probability) == (5, 3, -3.5)
    assert total.bits_per_byte == pytest.approx(3.5 / math.log(2) / 5)
    assert total.perplexity == pytest.approx(math.exp(3.5 / 3))
    assert (add_up(scores[:1]).bits_per_byte, add_up(scores[:1]).perplexity) == (
        scores[0].bits_per_byte,
        scores[0].perplexity,
    )
