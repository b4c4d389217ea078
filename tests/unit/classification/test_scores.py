"""Scores against a table computed by hand, and against their definition by precision and recall."""

import random
from fractions import Fraction

import pytest

from tinyllm.classification.scores import score

#                 label 0     label 1   label 2
TRUE = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
PREDICTED = [0, 0, 0, 1, 1, 1, 0, 2, 1, 1]


def test_a_table_computed_by_hand() -> None:
    scores = score(TRUE, PREDICTED, 3)
    assert scores.confusion == ((3, 1, 0), (1, 2, 0), (0, 2, 1))
    assert scores.accuracy == pytest.approx(6 / 10)
    # F1 = 2 right / (true + predicted): 6/8, 4/8, 2/4
    assert scores.macro_f1 == pytest.approx((6 / 8 + 4 / 8 + 2 / 4) / 3)


def test_a_label_that_never_occurs_does_not_count() -> None:
    assert score(TRUE, PREDICTED, 5).macro_f1 == score(TRUE, PREDICTED, 3).macro_f1


def test_a_label_that_is_only_predicted_counts_as_zero() -> None:
    assert score([0, 0], [0, 1], 2).macro_f1 == pytest.approx((2 / 3 + 0) / 2)


def test_macro_f1_is_the_mean_of_harmonic_means() -> None:
    draws = random.Random(0)
    true, predicted = ([draws.randrange(4) for _ in range(200)] for _ in range(2))
    values = []
    for label in range(4):
        right = sum(t == p == label for t, p in zip(true, predicted, strict=True))
        precision, recall = Fraction(right, predicted.count(label)), Fraction(right, true.count(label))
        values.append(2 * precision * recall / (precision + recall))
    assert score(true, predicted, 4).macro_f1 == pytest.approx(float(sum(values) / 4))
