"""Scores of predictions: accuracy, macro F1, and the confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """Scores of predictions against true labels."""

    confusion: tuple[tuple[int, ...], ...]
    """`confusion[true][predicted]` counts sentences."""

    @property
    def num_sentences(self) -> int:
        """Number of sentences."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """Fraction of sentences with the right prediction."""
        return sum(row[label] for label, row in enumerate(self.confusion)) / self.num_sentences

    @property
    def macro_f1(self) -> float:
        """Unweighted mean F1 over labels that are true or predicted at least once, as in scikit-learn."""
        values = []
        for label, row in enumerate(self.confusion):
            num_true, num_predicted = sum(row), sum(other[label] for other in self.confusion)
            if num_true + num_predicted:
                values.append(2 * row[label] / (num_true + num_predicted))
        return sum(values) / len(values)


def score(labels: Sequence[int], predictions: Sequence[int], num_labels: int) -> Scores:
    """The scores of `predictions` against `labels`: at least one of each, all below `num_labels`."""
    counts = [[0] * num_labels for _ in range(num_labels)]
    for label, prediction in zip(labels, predictions, strict=True):
        counts[label][prediction] += 1
    return Scores(tuple(map(tuple, counts)))
