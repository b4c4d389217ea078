"""A classifier's directory: round trip, and errors for damage and for use as a language model."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tinyllm import storage
from tinyllm.classification.classifier import Classifier
from tinyllm.classification.classifier_dir import load_classifier, save_classifier
from tinyllm.cli.model import describe, table
from tinyllm.doctor.model_facts import read_model_facts
from tinyllm.errors import ArtifactError, FormatError, InputError, MismatchError
from tinyllm.loading import load
from tinyllm.model_dir import CLASSIFIER, is_classifier, load_model

NAMES = ["bad", "good", "fine"]


@pytest.fixture
def classifier_dir(make_model_dir: Callable[..., Path], tmp_path: Path) -> Path:
    model, tokenizer = load_model(make_model_dir(tie_embeddings=False))
    save_classifier(tmp_path / "c", Classifier.from_language_model(model, NAMES, seed=1), tokenizer, {"epoch": 3})
    return tmp_path / "c"


def reseal(path: Path) -> Path:
    """Writes a valid manifest for files that a test changed."""
    files = {file.name: file.read_bytes() for file in path.iterdir() if file.name != storage.MANIFEST_NAME}
    with storage.commit_directory(path, CLASSIFIER) as draft:
        for name, content in files.items():
            (draft.path / name).write_bytes(content)
    return path


def test_a_saved_classifier_loads_with_equal_weights(classifier_dir: Path, make_model_dir: Callable[..., Path]) -> None:
    model, tokenizer = load_model(make_model_dir(tie_embeddings=False))
    expected = Classifier.from_language_model(model, NAMES, seed=1)
    found, found_tokenizer = load_classifier(classifier_dir)
    assert (found.label_names, found_tokenizer.fingerprint) == (NAMES, tokenizer.fingerprint)
    assert not found.training
    rows = [[1, 5, 6], [1, 7]]
    torch.testing.assert_close(found.score_rows(rows), expected.score_rows(rows), rtol=0, atol=0)
    assert storage.read_manifest(classifier_dir).details["epoch"] == 3


def test_a_classifier_is_refused_as_a_language_model(classifier_dir: Path, make_model_dir: Callable[..., Path]) -> None:
    assert is_classifier(classifier_dir)
    assert not is_classifier(make_model_dir())
    with pytest.raises(InputError, match="holds a classifier, which gives labels and no text"):
        load_model(classifier_dir)


def test_the_seed_decides_the_head(make_model_dir: Callable[..., Path]) -> None:
    model, _ = load_model(make_model_dir())
    one, same, other = (Classifier.from_language_model(model, NAMES, seed).score.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_damage_is_detected(classifier_dir: Path) -> None:
    weights = classifier_dir / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match="model.safetensors is damaged"):
        load_classifier(classifier_dir)


@pytest.mark.parametrize(
    ("id2label", "error", "message"),
    [
        (None, FormatError, "has no id2label"),
        ({"0": "bad", "2": "good"}, FormatError, "id2label does not name labels 0 to 1"),
        ({"0": "bad", "1": "good"}, MismatchError, r"1 misshaped \(score.weight \[3, 32\] instead of \[2, 32\]\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    classifier_dir: Path, id2label: object, error: type[Exception], message: str
) -> None:
    config = classifier_dir / "config.json"
    config.write_text(json.dumps(json.loads(config.read_bytes()) | {"id2label": id2label}))
    with pytest.raises(error, match=message):
        load_classifier(reseal(classifier_dir))


def test_info_shows_the_labels_and_every_tensor(classifier_dir: Path) -> None:
    facts = read_model_facts(classifier_dir)
    assert facts.label_names == tuple(NAMES)
    assert facts.num_parameters == sum(p.numel() for p in load_classifier(classifier_dir)[0].parameters())
    lines = "\n".join(table(facts))
    assert re.search("^labels +3: bad, good, fine$", lines, re.MULTILINE)
    assert "score.weight" in lines
    assert "every file matches its checksum" in lines
    assert describe(facts)["labels"] == NAMES


def test_a_classifier_without_its_manifest_is_refused_as_a_language_model(classifier_dir: Path) -> None:
    (classifier_dir / "manifest.json").unlink()
    with pytest.raises(FormatError, match="holds a classifier"):
        load(classifier_dir)
