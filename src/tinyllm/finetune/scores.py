"""How good predictions are: accuracy, macro F1, and the table of what was taken for what. Pure counting."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """Predictions against the truth."""

    confusion: tuple[tuple[int, ...], ...]
    """`confusion[true][predicted]` counts sentences."""

    @property
    def num_sentences(self) -> int:
        """How many were counted."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """The part of sentences whose prediction is right."""
        return sum(row[label] for label, row in enumerate(self.confusion)) / self.num_sentences

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the labels that are true or predicted at least once, each counting the same (as scikit-learn)."""
        values = []
        for label, row in enumerate(self.confusion):
            num_true, num_predicted = sum(row), sum(other[label] for other in self.confusion)
            if num_true + num_predicted:
                values.append(2 * row[label] / (num_true + num_predicted))
        return sum(values) / len(values)


def score(labels: Sequence[int], predictions: Sequence[int], num_labels: int) -> Scores:
    """Counts `predictions` against `labels`, at least one, all of them below `num_labels`."""
    counts = [[0] * num_labels for _ in range(num_labels)]
    for label, prediction in zip(labels, predictions, strict=True):
        counts[label][prediction] += 1
    return Scores(tuple(map(tuple, counts)))
