"""Classification of sentences as an objective of the training loop.

A batch is `Sentences`; its loss is the cross entropy of their labels. An update takes one batch, and an epoch takes
every training sentence once, in an order that is a function of (seed, epoch).

Shapes: B sentences, T tokens of the longest, L labels.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.classification.batches import batches_by_length, pad
from tinyllm.classification.classifier import Classifier
from tinyllm.classification.scores import Scores, score
from tinyllm.classification.task import LabelledRows
from tinyllm.config import FinetuneConfig
from tinyllm.errors import UsageError
from tinyllm.machine import ranks
from tinyllm.machine.signals import StopRequest
from tinyllm.training.objective import Evaluation
from tinyllm.training.step import Updater

POOL_BATCHES = 50


class Sentences(NamedTuple):
    """A batch of labelled sentences."""

    tokens: Tensor
    """(B, T) int64, padded on the right."""
    lengths: Tensor
    """(B,) int64, without padding."""
    labels: Tensor
    """(B,) int64."""


@dataclass(frozen=True)
class DevEvaluation(Evaluation):
    """Loss and scores on the dev sentences; the best epoch has the largest accuracy."""

    scores: Scores = field(kw_only=True)

    @property
    def criterion(self) -> float:
        """The fraction of wrong predictions."""
        return 1 - self.scores.accuracy

    def record(self) -> dict[str, Any]:
        """The fields of its line of metrics."""
        return {
            "validation_loss": self.loss,
            "validation_accuracy": self.scores.accuracy,
            "confusion": self.scores.confusion,
        }


class Classification:
    """Training sentences in the order of `config.seed`, and dev sentences for the evaluation."""

    name = "loss of labels"
    only_whole_epochs = True

    def __init__(self, classifier: Classifier, train: LabelledRows, dev: LabelledRows, config: FinetuneConfig) -> None:
        """Raises UsageError on several ranks: the sentences of a batch are not shared out."""
        if ranks.num_ranks() > 1:
            raise UsageError(f"a classifier trains on one rank, and there are {ranks.num_ranks()}")
        self.classifier, self.train, self.dev, self.config = classifier, train, dev, config
        self.lengths = [len(row) for row in train.rows]
        self.batches_per_epoch = -(-len(train.rows) // config.batch_size)
        self._order: tuple[int, list[list[int]]] = (-1, [])
        self._num_right: Tensor = torch.zeros(())
        self._num_sentences = 0
        self._start = _fingerprint_weights(classifier)

    def compile(self, enabled: bool) -> None:
        """Has nothing to compile."""

    def loss(self, model: Classifier, batch: Sentences) -> Tensor:
        """Summed cross entropy of the labels: scalar float32, in nats."""
        logits = model(batch.tokens, batch.lengths)
        self._num_right = (logits.argmax(dim=1) == batch.labels).sum()
        return F.cross_entropy(logits, batch.labels, reduction="sum")

    def batches(self, step: int) -> Iterator[Sentences]:
        """The one batch of update `step`."""
        places = self.places_of(step)
        self._num_sentences = len(places)
        yield self._make_batch(self.train, places)

    def num_targets(self, step: int) -> int:
        """The number of sentences of update `step`; the last batch of an epoch's order may be smaller."""
        return len(self.places_of(step))

    def places_of(self, step: int) -> list[int]:
        """The training sentences of update `step`."""
        epoch, number = divmod(step, self.batches_per_epoch)
        if self._order[0] != epoch:
            # The orders of the epochs come from one generator, so that of an epoch needs those before it.
            draws = torch.Generator().manual_seed(self.config.seed)
            for _ in range(epoch + 1):
                order = shuffled_batches(self.lengths, self.config.batch_size, draws)
            self._order = epoch, order
        return self._order[1][number]

    def num_epochs(self, step: int) -> float:
        """The number of passes over the training sentences in the first `step` updates."""
        return step / self.batches_per_epoch

    def metrics(self) -> dict[str, Any]:
        """The number of the last update's sentences, and of right predictions during the update."""
        return {"num_sentences": self._num_sentences, "num_right": int(self._num_right)}

    @torch.no_grad()
    def evaluate(self, updater: Updater, stop: StopRequest | None) -> DevEvaluation | None:
        """Loss and scores on the dev sentences; None if `stop` was requested before the end.

        Losses and predictions stay on the device, and are copied once.
        """
        model, dev = updater.shadow.eval(), self.dev
        losses: list[Tensor] = []
        labels: list[Tensor] = []
        batches = batches_by_length(dev.rows, self.config.batch_size)
        try:
            for places in batches:
                if stop:
                    return None
                batch = self._make_batch(dev, places)
                logits = model(batch.tokens, batch.lengths)
                losses.append(F.cross_entropy(logits, batch.labels, reduction="sum"))
                labels.append(logits.argmax(dim=1))
        finally:
            model.train()
        found = dict(zip(chain.from_iterable(batches), torch.cat(labels).tolist(), strict=True))
        predictions = [found[place] for place in range(len(dev.rows))]
        scores = score(dev.labels, predictions, len(self.classifier.label_names))
        return DevEvaluation(sum(torch.stack(losses).tolist()) / len(dev.rows), scores=scores)

    def inputs(self) -> dict[str, Any]:
        """Fingerprints of the sentences and of the weights before training, and the settings."""
        return {
            "train": _fingerprint(self.train),
            "dev": _fingerprint(self.dev),
            "start": self._start,
            "labels": self.classifier.label_names,
            "finetune": self.config.model_dump(),
        }

    def resume_from(self, inputs: Mapping[str, Any]) -> None:
        """Takes nothing over: all versions have the same order."""

    def _make_batch(self, data: LabelledRows, places: Sequence[int]) -> Sentences:
        device = self.classifier.device
        labels = torch.tensor([data.labels[place] for place in places], device=device)
        return Sentences(*pad([data.rows[place] for place in places], device), labels)


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


def _fingerprint(data: LabelledRows) -> str:
    return hashlib.sha256(json.dumps([data.rows, data.labels]).encode()).hexdigest()


def _fingerprint_weights(classifier: Classifier) -> str:
    digest = hashlib.sha256()
    for name, parameter in classifier.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().to("cpu").contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
