"""Classification against independent truths: a sentence alone, and transformers' own classifier."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from tinyllm.classification.classifier import Classifier
from tinyllm.classification.classifier_dir import save_classifier
from tinyllm.classification.zero_shot import ZeroShot
from tinyllm.model_dir import load_model

ROWS = [[1, 40], [1, *range(50, 64)], [1, 7, 7, 7, 7, 7], [1, *range(300, 310)], [1, 299, 298]]
LABELS = ["red ball", "fox", "bear"]
MAKERS = {
    "zero-shot": lambda model, tokenizer: ZeroShot(model, tokenizer, LABELS, "{labels}? It is a ").score_rows,
    "classifier": lambda model, tokenizer: Classifier.from_language_model(model, LABELS, 1).eval().score_rows,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_result_does_not_depend_on_the_neighbours(
    make_model_dir: Callable[..., Path], make: Callable[..., Callable[..., torch.Tensor]]
) -> None:
    score_rows = make(*load_model(make_model_dir(context_length=128)))
    alone = torch.cat([score_rows([row]) for row in ROWS])
    assert alone.std(dim=0).min() > 1e-2  # the sentences differ
    for rows in (ROWS, ROWS[::-1], [*ROWS, [1] * 60]):
        together = score_rows(rows)
        for place, row in enumerate(rows):
            if row in ROWS:
                # Rounding alone: sums of another shape are added in another order.
                torch.testing.assert_close(together[place], alone[ROWS.index(row)], rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_transformers_loads_a_classifier_and_agrees(
    make_model_dir: Callable[..., Path], tmp_path: Path, tie_embeddings: bool
) -> None:
    model, tokenizer = load_model(make_model_dir(tie_embeddings=tie_embeddings))
    ours = Classifier.from_language_model(model, LABELS, seed=1).eval()
    save_classifier(tmp_path / "c", ours, tokenizer, {})
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "c").eval()
    assert [theirs.config.id2label[label] for label in range(3)] == LABELS
    expected = torch.cat([theirs(torch.tensor([row])).logits for row in ROWS])
    assert expected.abs().max() > 0.1  # the comparison is of real numbers
    torch.testing.assert_close(ours.score_rows(ROWS), expected, rtol=0, atol=1e-5)
