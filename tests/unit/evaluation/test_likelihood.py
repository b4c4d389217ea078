"""Log-probabilities equal those of the model's own logits, token by token, with the context that each token has."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyllm.errors import FormatError, InputError
from tinyllm.evaluation.likelihood import Request, Scorer
from tinyllm.generation import scoring
from tinyllm.loading import load, load_with_torch, open_model
from tinyllm.model.transformer import Transformer
from tinyllm.progress import Progress, Reporter


@pytest.fixture
def folder(make_model_dir: Callable[..., Path]) -> Path:
    return make_model_dir()


@pytest.fixture
def model(folder: Path) -> Transformer:
    return open_model(folder)[0].eval()


@pytest.fixture(params=[load, load_with_torch])
def scorer(folder: Path, request: pytest.FixtureRequest) -> Scorer:
    """On each engine."""
    return Scorer(request.param(folder, device="cpu"))


def log_probability(model: Transformer, before: list[int], token: int) -> float:
    """The log-probability of a token after the ids `before`, by a pass of its own."""
    with torch.no_grad():
        logits = model(torch.tensor([before]))[0, -1].double()
    return float(torch.log_softmax(logits, -1)[token])


def test_a_text_is_the_product_of_its_tokens_after_bos(scorer: Scorer, model: Transformer) -> None:
    texts = ["Once upon a time the fox", "ball.", "Once upon a time the owl saw"]
    for text, found in zip(texts, scorer.score([Request("", text) for text in texts]), strict=True):
        ids = scorer.tokenizer.encode(text, bos=True)
        expected = sum(log_probability(model, ids[:place], ids[place]) for place in range(1, len(ids)))
        assert found.log_probability == pytest.approx(expected, abs=1e-4)
        assert (found.num_tokens, found.num_bytes) == (len(ids) - 1, len(text))
        assert found.bits_per_byte == pytest.approx(-expected / math.log(2) / len(text), abs=1e-5)


def test_a_continuation_is_scored_after_its_context(scorer: Scorer, model: Transformer) -> None:
    context, text = "Once upon a time", " the fox saw"
    (found,) = scorer.score([Request(context, text)])
    ids, num_context = scorer.tokenizer.encode(context + text, bos=True), len(scorer.tokenizer.encode(context)) + 1
    expected = sum(log_probability(model, ids[:place], ids[place]) for place in range(num_context, len(ids)))
    assert found.log_probability == pytest.approx(expected, abs=1e-4)
    assert found.num_tokens == len(ids) - num_context


def test_a_token_across_the_border_counts_as_text(scorer: Scorer) -> None:
    row, first = scorer.encode(Request("Once upon a ti", "me"))
    assert scorer.tokenizer.decode(row) == "Once upon a time"
    assert first < len(row)
    assert "ti" not in scorer.tokenizer.decode(row[:first])


def test_greedy_tokens_are_known(scorer: Scorer, model: Transformer) -> None:
    ids = scorer.tokenizer.encode("Once", bos=True)
    for _ in range(5):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    ((_, likeliest),) = scorer.score_rows([ids], [len(ids) - 5])
    assert likeliest.all()
    other = (ids[-1] + 1) % scorer.tokenizer.vocab_size
    ((_, likeliest),) = scorer.score_rows([[*ids[:-1], other]], [len(ids) - 5])
    assert likeliest.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize(("length", "first"), [(33, 1), (34, 1), (100, 1), (100, 97), (100, 40), (49, 10)])
def test_each_token_of_a_long_text_has_half_a_context_before_it(
    scorer: Scorer, model: Transformer, length: int, first: int
) -> None:
    context = model.config.context_length
    row = np.random.default_rng(length).integers(3, scorer.tokenizer.vocab_size, length).tolist()
    ((logs, _),) = scorer.score_rows([row], [first])
    assert len(logs) == length - first
    for place, log in enumerate(logs.tolist(), start=first):
        possible = [
            log_probability(model, row[place - num_before : place], row[place])
            for num_before in range(min(place, context // 2), min(place, context) + 1)
        ]
        assert min(abs(log - each) for each in possible) < 1e-4, place


def test_batches_do_not_change_the_scores(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [Request("", "Once upon a time the fox saw a red ball. " * count) for count in (1, 3, 2, 5)]
    together = [score.log_probability for score in scorer.score(requests)]
    monkeypatch.setattr(scoring, "CALL_BYTES", 1)
    assert [score.log_probability for score in scorer.score(requests)] == pytest.approx(together, abs=1e-4)


def test_progress_ends_with_all_tokens(folder: Path) -> None:
    class Listener(Reporter):
        calls: list[Progress] = []  # noqa: RUF012 (one test)

        def advance(self, progress: Progress) -> None:
            self.calls.append(progress)

    scores = Scorer(load_with_torch(folder, device="cpu"), Listener(), "a label").score([Request("", "red ball " * 40)])
    assert Listener.calls[-1] == Progress("a label", scores[0].num_tokens, scores[0].num_tokens, "tokens")


def test_an_empty_text_is_refused(scorer: Scorer) -> None:
    with pytest.raises(InputError, match="the text '' has no token to predict"):
        scorer.score([Request("", "")])


def test_damaged_weights_are_named(folder: Path) -> None:
    generator = load_with_torch(folder, device="cpu")
    with torch.no_grad():
        generator.engine._model.output_weight[5, 0] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(FormatError, match="logits are not finite"):
        Scorer(generator).score([Request("", "Once upon a time")])
