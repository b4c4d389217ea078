"""Tasks are scored by fixed likelihoods, so that every rule is known by hand."""

from collections.abc import Sequence

import pytest

from tinyllm.evaluation.likelihood import Likelihood, Request, Scorer
from tinyllm.evaluation.minimal_pairs import MinimalPair
from tinyllm.evaluation.scores import GroupScore, score_tasks
from tinyllm.evaluation.tasks import Cloze, MultipleChoice, Task


class FixedScorer(Scorer):
    """Gives each text the log-probability that is written in it, and calls "yes" greedy."""

    def __init__(self) -> None:
        pass

    def score(self, requests: Sequence[Request]) -> list[Likelihood]:
        return [
            Likelihood(float(request.text.split()[0]), 1, len(request.text), "yes" in request.text)
            for request in requests
        ]


def test_pairs_count_where_the_good_text_is_likelier() -> None:
    tasks = [MinimalPair("-1", "-2", "a"), MinimalPair("-2", "-1", "b"), MinimalPair("-3", "-3", "a")]
    assert score_tasks(FixedScorer(), tasks) == [
        GroupScore("a", "pairs", 2, 0.5, None, None, 0.5),
        GroupScore("b", "pairs", 1, 0.0, None, None, 0.5),
    ]


def test_choices_count_raw_and_by_bytes() -> None:
    long = "-3 " + "x" * 9
    tasks = [MultipleChoice("", ("-2", long, "-9"), 1, "a"), MultipleChoice("", ("-2", "-3", "-9", "-9"), 0, "a")]
    (score,) = score_tasks(FixedScorer(), tasks)
    assert (score.accuracy, score.accuracy_by_length) == (0.5, 1.0)
    assert score.chance == pytest.approx((1 / 3 + 1 / 4) / 2)


def test_cloze_counts_greedy_answers_and_bits() -> None:
    (score,) = score_tasks(FixedScorer(), [Cloze("", "-6.93147 yes", "a"), Cloze("", "-6.93147 no", "a")])
    assert (score.accuracy, score.chance, score.num_tasks) == (0.5, None, 2)
    assert score.bits_per_byte == pytest.approx(20 / 23, rel=1e-4)


def test_kinds_of_one_group_are_scored_apart() -> None:
    tasks: list[Task] = [MinimalPair("-1", "-2", "a"), Cloze("", "-1 yes", "a"), MinimalPair("-1", "-2", "a")]
    assert [(score.kind, score.num_tasks) for score in score_tasks(FixedScorer(), tasks)] == [
        ("pairs", 2),
        ("cloze", 1),
    ]
