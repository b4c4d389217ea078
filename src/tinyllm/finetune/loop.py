"""Fine-tuning: epochs over the training sentences; the weights with the best accuracy on the dev sentences are kept.

As the course does it: AdamW at a constant rate, no weight decay, cross entropy, dropout before the head. The order of
sentences is drawn anew for each epoch; the same seed gives the same weights on the same machine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from tinyllm import storage
from tinyllm.config import FinetuneConfig, OptimizerConfig
from tinyllm.errors import DivergenceError
from tinyllm.finetune.batches import Track, pad, predict
from tinyllm.finetune.classifier import Classifier
from tinyllm.finetune.classifier_dir import save_classifier
from tinyllm.finetune.scores import Scores, score
from tinyllm.runtime import keep_freed_memory, seed_everything
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.training.optimizer import build_optimizers, set_learning_rate

OPTIMIZER = OptimizerConfig(beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0)
POOL_BATCHES = 50


@dataclass(frozen=True)
class LabelledRows:
    """Sentences as token ids with BOS, and their labels."""

    rows: list[list[int]]
    labels: list[int]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training sentences brought."""

    number: int
    """From 0, as the course counts them."""
    train_loss: float
    """Mean over the epoch's sentences, while learning and with dropout, in nats."""
    train_accuracy: float
    """Likewise while learning: no second pass over the training sentences."""
    dev: Scores
    is_best: bool
    """Whether no earlier epoch was as good on the dev sentences; then its weights were saved."""


def finetune(
    classifier: Classifier,
    tokenizer: Tokenizer,
    train: LabelledRows,
    dev: LabelledRows,
    config: FinetuneConfig,
    output: Path,
    track: Track,
    report: Callable[[Epoch], None],
) -> None:
    """Trains `classifier` in place and leaves the best one of all epochs in the directory `output`.

    Raises DivergenceError at the first loss that is not finite, ArtifactError if the disk refuses or another run
    writes there.
    """
    keep_freed_memory()
    seed_everything(config.seed)
    classifier.dropout.p = config.dropout
    (optimizer,) = build_optimizers(classifier, OPTIMIZER)
    set_learning_rate([optimizer], config.lr)
    order = torch.Generator().manual_seed(config.seed)
    best_accuracy = -math.inf
    with storage.exclusive(output.parent, output.name):
        for number in range(config.epochs):
            loss, accuracy = _train_epoch(classifier, optimizer, train, config.batch_size, order, track, number)
            scores = _evaluate(classifier, dev, config.batch_size, track)
            epoch = Epoch(number, loss, accuracy, scores, is_best=scores.accuracy > best_accuracy)
            if epoch.is_best:
                best_accuracy = scores.accuracy
                facts = {"epoch": number, "dev_accuracy": scores.accuracy, "finetune": config.model_dump()}
                save_classifier(output, classifier, tokenizer, facts)
            report(epoch)


def shuffled_batches(lengths: Sequence[int], batch_size: int, order: torch.Generator) -> list[list[int]]:
    """Every place once, in random batches of sentences of like length: half the padding of plain shuffling, or less.

    Places are shuffled, sorted by length within pools of `POOL_BATCHES` batches, and the batches shuffled once more.
    """
    places: list[int] = torch.randperm(len(lengths), generator=order).tolist()
    pool_size = POOL_BATCHES * batch_size
    pools = [places[start : start + pool_size] for start in range(0, len(places), pool_size)]
    alike = [place for pool in pools for place in sorted(pool, key=lambda place: lengths[place])]
    batches = [alike[start : start + batch_size] for start in range(0, len(alike), batch_size)]
    return [batches[number] for number in torch.randperm(len(batches), generator=order).tolist()]


def _train_epoch(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    data: LabelledRows,
    batch_size: int,
    order: torch.Generator,
    track: Track,
    number: int,
) -> tuple[float, float]:
    """One update a batch; gives the mean loss and the accuracy of the batches as they went by."""
    classifier.train()
    lengths = [len(row) for row in data.rows]
    total_loss, num_right = 0.0, 0
    for places in track(shuffled_batches(lengths, batch_size, order), f"train-{number}"):
        labels = torch.tensor([data.labels[place] for place in places], device=classifier.device)
        logits = classifier(*pad([data.rows[place] for place in places], classifier.device))
        loss = F.cross_entropy(logits, labels)
        if not math.isfinite(loss.item()):
            raise DivergenceError(f"the loss is {loss.item()} in epoch {number}; try a lower --lr")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total_loss += loss.item() * len(places)
        num_right += int((logits.argmax(dim=1) == labels).sum())
    return total_loss / len(data.rows), num_right / len(data.rows)


def _evaluate(classifier: Classifier, data: LabelledRows, batch_size: int, track: Track) -> Scores:
    classifier.eval()
    predictions = predict(classifier.score_rows, data.rows, batch_size, track, "dev")
    return score(data.labels, predictions, len(classifier.label_names))
