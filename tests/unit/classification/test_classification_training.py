"""Fine-tuning on a task that can be learned, which of two tokens ends a sentence: stopped, resumed and undisturbed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tinyllm import storage
from tinyllm.classification.batches import pad
from tinyllm.classification.classifier import Classifier
from tinyllm.classification.classifier_dir import load_classifier
from tinyllm.classification.events import Epoch, FinetuneReporter
from tinyllm.classification.objective import Classification, shuffled_batches
from tinyllm.classification.task import LabelledRows
from tinyllm.classification.training import finetune
from tinyllm.config import FinetuneConfig
from tinyllm.errors import DivergenceError, Interrupted, UsageError
from tinyllm.machine import ranks
from tinyllm.model_dir import load_model
from tinyllm.progress import Progress
from tinyllm.training.step import Updater

CONFIG = FinetuneConfig(epochs=4, learning_rate=1e-2, batch_size=8, seed=3)
NUM_BATCHES = 8


def make_rows(num_rows: int, seed: int) -> LabelledRows:
    draws = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 300, (length,), generator=draws).tolist() for length in [3, 5, 9, 4] * (num_rows // 4)]
    labels = [place % 2 for place in range(len(rows))]
    return LabelledRows([[1, *row, 50 + label] for row, label in zip(rows, labels, strict=True)], labels)


TRAIN, DEV = make_rows(64, 0), make_rows(32, 1)


class Listener(FinetuneReporter):
    """Records all events, and sends signals to this process after given updates."""

    def __init__(self, signals: dict[int, list[int]] | None = None) -> None:
        self.signals = signals or {}
        self.epochs: list[Epoch] = []
        self.notes: list[str] = []
        self.steps: list[int] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def advance(self, progress: Progress) -> None:
        self.steps.append(progress.done)
        for number in self.signals.get(progress.done, []):
            os.kill(os.getpid(), number)

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)


Run = Callable[..., Listener]


@pytest.fixture
def run(make_model_dir: Callable[..., Path], tmp_path: Path) -> Run:
    (tmp_path / "outputs").mkdir()

    def run(
        output: str = "out",
        config: FinetuneConfig = CONFIG,
        signals: dict[int, list[int]] | None = None,
        train: LabelledRows = TRAIN,
    ) -> Listener:
        model, tokenizer = load_model(make_model_dir())
        listener = Listener(signals)
        classifier = Classifier.from_language_model(model, ["even", "odd"], config.seed)
        finetune(classifier, tokenizer, train, DEV, config, tmp_path / "outputs" / output, listener)
        return listener

    return run


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def weights_of(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


def test_it_learns_and_saves_the_best_epoch(run: Run, outputs: Path) -> None:
    listener = run()
    accuracies = [epoch.dev.accuracy for epoch in listener.epochs]
    assert max(accuracies) > 0.9
    assert [epoch.number for epoch in listener.epochs] == [0, 1, 2, 3]
    assert [e.is_best for e in listener.epochs] == [
        a > max(accuracies[:n], default=-1) for n, a in enumerate(accuracies)
    ]
    assert listener.steps == list(range(1, 4 * NUM_BATCHES + 1))
    assert listener.notes == []
    classifier, _ = load_classifier(outputs / "out")
    right = classifier.score_rows(DEV.rows).argmax(1) == torch.tensor(DEV.labels)
    assert float(right.float().mean()) == pytest.approx(max(accuracies))
    details = storage.read_manifest(outputs / "out").details
    assert details["epoch"] == accuracies.index(max(accuracies))
    assert details["dev_accuracy"] == max(accuracies)
    assert [path.name for path in outputs.iterdir()] == ["out"], "nothing stays beside the output"


def test_the_seed_gives_the_same_bytes(run: Run, outputs: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 1})
    run("one", config)
    run("two", config)
    run("other", config.model_copy(update={"seed": 4}))
    one, two, other = (weights_of(outputs / name) for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_the_loop_trains_as_a_plain_loop_does(run: Run, outputs: Path, make_model_dir: Callable[..., Path]) -> None:
    """Two epochs of AdamW on the mean cross entropy, without dropout, written out."""
    config = CONFIG.model_copy(update={"epochs": 2, "dropout": 0.0, "learning_rate": 3e-4})
    epochs = run(config=config).epochs
    classifier = Classifier.from_language_model(load_model(make_model_dir())[0], ["even", "odd"], config.seed)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0)
    draws = torch.Generator().manual_seed(config.seed)
    for epoch in epochs:
        total, num_right = 0.0, 0
        for places in shuffled_batches([len(row) for row in TRAIN.rows], config.batch_size, draws):
            labels = torch.tensor([TRAIN.labels[place] for place in places])
            logits = classifier(*pad([TRAIN.rows[place] for place in places]))
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(places)
            num_right += int((logits.argmax(1) == labels).sum())
        assert epoch.train_loss == pytest.approx(total / 64, rel=1e-5)
        assert epoch.train_accuracy == num_right / 64
    assert epochs[1].is_best
    saved = load_file(outputs / "out" / "model.safetensors")
    for name, parameter in classifier.named_parameters():
        torch.testing.assert_close(saved[name], parameter.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop", [1, NUM_BATCHES - 1, NUM_BATCHES, 2 * NUM_BATCHES + 3, 4 * NUM_BATCHES])
def test_stopped_and_resumed_is_bit_identical(stop: int, run: Run, outputs: Path) -> None:
    """Stop points: the first update, before, at and after the end of an epoch, and the last update."""
    whole = run("whole")
    with pytest.raises(Interrupted, match="and saved; the same command goes on from there") as stopped:
        run("out", signals={stop: [signal.SIGTERM]})
    assert stopped.value.exit_code == 143
    assert not (outputs / "out").exists()
    resumed = run("out")
    assert resumed.notes == [f"going on from the stopped training, after {stop} of {4 * NUM_BATCHES} updates"]
    assert resumed.steps == list(range(stop + 1, 4 * NUM_BATCHES + 1))
    assert resumed.epochs == whole.epochs[-len(resumed.epochs) :]
    assert weights_of(outputs / "out") == weights_of(outputs / "whole")
    details = [storage.read_manifest(outputs / name).details for name in ("out", "whole")]
    assert details[0] == details[1]
    assert {path.name for path in outputs.iterdir()} == {"out", "whole"}


def test_stopped_twice_is_bit_identical(run: Run, outputs: Path) -> None:
    run("whole")
    for stop, number in ((3, signal.SIGINT), (11, signal.SIGTERM)):
        with pytest.raises(Interrupted):
            run("out", signals={stop: [number]})
    run("out")
    assert weights_of(outputs / "out") == weights_of(outputs / "whole")


def test_a_second_signal_keeps_the_last_checkpoint(run: Run, outputs: Path) -> None:
    run("whole")
    with pytest.raises(Interrupted):
        run("out", signals={10: [signal.SIGTERM]})
    with pytest.raises(SystemExit):
        run("out", signals={13: 2 * [signal.SIGTERM]})
    resumed = run("out")
    assert resumed.steps[0] == 11, "the checkpoint of the first stop"
    assert weights_of(outputs / "out") == weights_of(outputs / "whole")


@pytest.mark.parametrize(
    "change",
    [
        {"config": CONFIG.model_copy(update={"learning_rate": 5e-3})},
        {"config": CONFIG.model_copy(update={"epochs": 3})},
        {"train": make_rows(60, 0)},
    ],
)
def test_a_training_with_other_inputs_starts_anew(change: dict[str, FinetuneConfig], run: Run, outputs: Path) -> None:
    with pytest.raises(Interrupted):
        run(signals={10: [signal.SIGTERM]})
    listener = run(**change)
    assert listener.steps[0] == 1
    (note,) = listener.notes
    assert note.endswith("other sentences, settings or weights; this one starts anew")
    run("whole", **change)
    assert weights_of(outputs / "out") == weights_of(outputs / "whole")


def test_a_damaged_checkpoint_is_said_to_be_passed_over(run: Run, outputs: Path) -> None:
    with pytest.raises(Interrupted):
        run(signals={10: [signal.SIGTERM]})
    for checkpoint in outputs.glob(".tinyllm-*/run/checkpoints/step-*"):
        weights = checkpoint / "optimizer.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    listener = run()
    assert listener.steps[0] == 1
    assert listener.notes[-1] == "no checkpoint of the stopped training is whole; this one starts anew"
    assert "step-00000010 is passed over" in listener.notes[0]


def test_an_older_classifier_stays_until_the_training_is_done(run: Run, outputs: Path) -> None:
    run(config=CONFIG.model_copy(update={"seed": 9}))
    before = weights_of(outputs / "out")
    with pytest.raises(Interrupted):
        run(signals={30: [signal.SIGTERM]})
    assert weights_of(outputs / "out") == before
    run()
    run("whole")
    assert weights_of(outputs / "out") == weights_of(outputs / "whole")


def test_a_loss_that_is_not_finite_stops(run: Run, outputs: Path) -> None:
    with pytest.raises(DivergenceError, match="in epoch 0; try a lower `learning_rate`"):
        run(config=CONFIG.model_copy(update={"learning_rate": 1e38}))
    assert list(outputs.iterdir()) == []


def test_a_divergence_keeps_the_best_epoch_before_it(run: Run, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = Classification.loss

    def spoil(self: Classification, model: Classifier, batch: object) -> torch.Tensor:
        result = loss(self, model, batch)  # type: ignore[arg-type]
        return result * (torch.nan if self._order[0] == 2 else 1)

    monkeypatch.setattr(Classification, "loss", spoil)
    with pytest.raises(DivergenceError, match="in epoch 2; the best epoch before it is in .*out; try a lower"):
        run()
    assert storage.read_manifest(outputs / "out").details["epoch"] in (0, 1)
    assert [path.name for path in outputs.iterdir()] == ["out"]


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


def test_a_batch_is_a_function_of_the_step(make_model_dir: Callable[..., Path]) -> None:
    rows = make_rows(60, 0)
    classifier = Classifier.from_language_model(load_model(make_model_dir())[0], ["even", "odd"], 1)
    objective, other = (Classification(classifier, rows, DEV, CONFIG) for _ in range(2))
    in_order = [objective.places_of(step) for step in range(16)]
    assert [other.places_of(step) for step in (13, 2, 8)] == [in_order[step] for step in (13, 2, 8)]
    for epoch in (in_order[:8], in_order[8:]):
        assert sorted(place for batch in epoch for place in batch) == list(range(60))
        assert sorted(map(len, epoch)) == [4, *[8] * 7]
    for step in range(16):
        (batch,) = objective.batches(step)
        assert objective.num_targets(step) == len(batch.labels) == len(batch.tokens)


def test_several_ranks_are_refused(make_model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier.from_language_model(load_model(make_model_dir())[0], ["even", "odd"], 1)
    monkeypatch.setattr(ranks, "num_ranks", lambda: 2)
    with pytest.raises(UsageError, match="a classifier trains on one rank, and there are 2"):
        Classification(classifier, TRAIN, DEV, CONFIG)


def test_an_evaluation_copies_from_the_device_twice_whatever_its_batches(
    make_model_dir: Callable[..., Path], record_copies: Callable[[], list[int]]
) -> None:
    """The losses of all batches, and all predictions."""
    model, _ = load_model(make_model_dir())
    classifier = Classifier.from_language_model(model, ["even", "odd"], CONFIG.seed)
    objective = Classification(classifier, TRAIN, DEV, CONFIG)
    copies = record_copies()
    updater = cast(Updater, SimpleNamespace(shadow=classifier))
    evaluation = objective.evaluate(updater, None)
    assert evaluation is not None
    assert sorted(copies) == [4, 32]
    assert sum(map(sum, evaluation.scores.confusion)) == 32
