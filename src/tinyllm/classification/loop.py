"""Fine-tunes a classifier for several epochs, and saves the weights with the best accuracy on the dev sentences.

The settings are the course's: AdamW at a constant rate, no weight decay, cross entropy, dropout before the head. Each
epoch shuffles the sentences. The same seed gives the same weights on the same machine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from tinyllm import storage
from tinyllm.classification.batches import Track, pad, predict
from tinyllm.classification.classifier import Classifier
from tinyllm.classification.classifier_dir import save_classifier
from tinyllm.classification.scores import Scores, score
from tinyllm.config import FinetuneConfig, OptimizerConfig
from tinyllm.errors import DivergenceError
from tinyllm.machine.device import seed_everything
from tinyllm.machine.system import keep_freed_memory
from tinyllm.model_dir import CLASSIFIER
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
    """Loss and scores of one pass over the training sentences."""

    number: int
    """Number of the epoch, from 0."""
    train_loss: float
    """Mean loss of the epoch's sentences, in nats, measured during the updates and with dropout."""
    train_accuracy: float
    """Accuracy on the epoch's sentences, measured during the updates."""
    dev: Scores
    is_best: bool
    """Whether its dev accuracy exceeds that of every earlier epoch; if so, its weights were saved."""


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
    """Trains `classifier` in place and saves the best epoch's weights in the directory `output`.

    Raises DivergenceError at the first loss that is not finite, ArtifactError if the disk refuses or another command
    writes to `output`.
    """
    keep_freed_memory()
    seed_everything(config.seed)
    classifier.dropout.p = config.dropout
    (optimizer,) = build_optimizers(classifier, OPTIMIZER)
    set_learning_rate([optimizer], config.learning_rate)
    order = torch.Generator().manual_seed(config.seed)
    best_accuracy = -math.inf
    with storage.hold(output, CLASSIFIER):
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
    """All indices 0 .. len(lengths) - 1 in random batches of sentences of similar length.

    Indices are shuffled, sorted by length within pools of `POOL_BATCHES` batches, and the batches are shuffled again.
    That halves the padding of plain shuffling, or better.
    """
    indices: list[int] = torch.randperm(len(lengths), generator=order).tolist()
    pool_size = POOL_BATCHES * batch_size
    pools = [indices[start : start + pool_size] for start in range(0, len(indices), pool_size)]
    by_length = [index for pool in pools for index in sorted(pool, key=lambda index: lengths[index])]
    batches = [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]
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
    """Does one update per batch; returns the mean loss and the accuracy, both measured during the updates."""
    classifier.train()
    lengths = [len(row) for row in data.rows]
    total_loss, num_right = 0.0, 0
    for indices in track(shuffled_batches(lengths, batch_size, order), f"train-{number}"):
        labels = torch.tensor([data.labels[index] for index in indices], device=classifier.device)
        logits = classifier(*pad([data.rows[index] for index in indices], classifier.device))
        loss = F.cross_entropy(logits, labels)
        if not math.isfinite(loss.item()):
            raise DivergenceError(f"the loss is {loss.item()} in epoch {number}", hint="try a lower `learning_rate`")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total_loss += loss.item() * len(indices)
        num_right += int((logits.argmax(dim=1) == labels).sum())
    return total_loss / len(data.rows), num_right / len(data.rows)


def _evaluate(classifier: Classifier, data: LabelledRows, batch_size: int, track: Track) -> Scores:
    classifier.eval()
    predictions = predict(classifier.score_rows, data.rows, batch_size, track, "dev")
    return score(data.labels, predictions, len(classifier.label_names))
