"""Fine-tuning on a task that can be learned: which of two tokens ends a sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tinyllm.classification.classifier import Classifier
from tinyllm.classification.classifier_dir import load_classifier
from tinyllm.classification.loop import Epoch, LabelledRows, finetune, shuffled_batches
from tinyllm.config import FinetuneConfig
from tinyllm.errors import DivergenceError
from tinyllm.model_dir import load_model

CONFIG = FinetuneConfig(epochs=4, learning_rate=1e-2, batch_size=8, seed=3)


def make_rows(num_rows: int, seed: int) -> LabelledRows:
    draws = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 300, (length,), generator=draws).tolist() for length in [3, 5, 9, 4] * (num_rows // 4)]
    labels = [place % 2 for place in range(len(rows))]
    return LabelledRows([[1, *row, 50 + label] for row, label in zip(rows, labels, strict=True)], labels)


@pytest.fixture
def run(make_model_dir: Callable[..., Path], tmp_path: Path) -> Callable[..., list[Epoch]]:
    def run(output: str = "out", config: FinetuneConfig = CONFIG) -> list[Epoch]:
        model, tokenizer = load_model(make_model_dir())
        epochs: list[Epoch] = []
        classifier = Classifier.from_language_model(model, ["even", "odd"], config.seed)
        data = make_rows(64, 0), make_rows(32, 1)
        finetune(classifier, tokenizer, *data, config, tmp_path / output, lambda b, _: b, epochs.append)
        return epochs

    return run


def test_it_learns_and_saves_the_best_epoch(run: Callable[..., list[Epoch]], tmp_path: Path) -> None:
    epochs = run()
    accuracies = [epoch.dev.accuracy for epoch in epochs]
    assert max(accuracies) > 0.9
    assert [e.is_best for e in epochs] == [a > max(accuracies[:n], default=-1) for n, a in enumerate(accuracies)]
    classifier, _ = load_classifier(tmp_path / "out")
    dev = make_rows(32, 1)
    right = classifier.score_rows(dev.rows).argmax(1) == torch.tensor(dev.labels)
    assert float(right.float().mean()) == pytest.approx(max(accuracies))


def test_the_seed_gives_the_same_bytes(run: Callable[..., list[Epoch]], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 1})
    run("one", config)
    run("two", config)
    run("other", config.model_copy(update={"seed": 4}))
    one, two, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_a_loss_that_is_not_finite_stops(run: Callable[..., list[Epoch]], tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="in epoch 0; try a lower `learning_rate`"):
        run(config=CONFIG.model_copy(update={"learning_rate": 1e38}))
    assert not (tmp_path / "out").exists()


def test_batches_visit_every_sentence_once_and_pad_little() -> None:
    order = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 100, (1003,), generator=order).tolist()
    first, second = (shuffled_batches(lengths, 8, order) for _ in range(2))
    for batches in (first, second):
        assert sorted(place for batch in batches for place in batch) == list(range(1003))
        padded = sum(len(batch) * max(lengths[place] for place in batch) for batch in batches)
        assert padded < 1.1 * sum(lengths)
        longest = [max(lengths[place] for place in batch) for batch in batches]
        assert longest != sorted(longest)
    assert first != second
