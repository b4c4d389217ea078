"""A labeller refuses what does not fit its model, in the words of Python, and labels texts of any length."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tinyllm.classification.classifier import Classifier
from tinyllm.classification.classifier_dir import save_classifier
from tinyllm.classification.labeller import label_texts, open_labeller
from tinyllm.errors import UsageError
from tinyllm.loading import open_model
from tinyllm.progress import Reporter


def test_language_model_needs_names(make_model_dir: Callable[..., Path]) -> None:
    path = make_model_dir()
    with pytest.raises(UsageError, match=r"not a classifier; a language model needs `label_names` to choose from$"):
        open_labeller(path, lambda: open_model(path), None, None, "cpu")


def test_classifier_has_its_own_labels(make_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    model, tokenizer = open_model(make_model_dir())
    classifier = Classifier.from_language_model(model, ["bad", "good"], seed=1)
    save_classifier(tmp_path / "labels", classifier, tokenizer, {})
    with pytest.raises(UsageError, match="labels of its own; leave out `label_names` and `question`$"):
        open_labeller(tmp_path / "labels", lambda: (model, tokenizer), None, "Is it?", "cpu")
    labeller = open_labeller(tmp_path / "labels", lambda: (model, tokenizer), None, None, "cpu")
    assert (labeller.label_names, labeller.row_limit) == (["bad", "good"], model.config.context_length)


def test_long_texts_are_cut_with_one_line(make_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    class Notes(Reporter):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def note(self, message: str) -> None:
            self.lines.append(message)

    path, names, notes = make_model_dir(), tmp_path / "names.json", Notes()
    names.write_text(json.dumps(["red", "blue"]), encoding="utf-8")
    labeller = open_labeller(path, lambda: open_model(path), names, "it is ", "cpu")
    texts = ["a fox " * 50, "a bear"]
    found = label_texts(labeller, texts, None, 2, notes)
    assert notes.lines == [f"1 of 2 sentences are longer than {labeller.row_limit} tokens; their ends were cut off"]
    rows = [labeller.tokenizer.encode(text, bos=True)[: labeller.row_limit] for text in texts]
    expected = torch.cat([labeller.score_rows([row]) for row in rows]).argmax(dim=1)
    assert found == expected.tolist()
