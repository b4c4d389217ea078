"""Scores of a model on tasks: which text is likelier, which choice, and whether it continues as expected.

The rules are those of BLiMP (Warstadt et al. 2020) for pairs, and of lm-evaluation-harness for the others. A tie is a
mistake.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

from tinyllm.evaluation.likelihood import Likelihood, Request, Scorer
from tinyllm.evaluation.minimal_pairs import MinimalPair
from tinyllm.evaluation.tasks import Cloze, MultipleChoice, Task


@dataclass(frozen=True)
class GroupScore:
    """The scores of the tasks of one kind in one group."""

    group: str
    kind: str
    """`pairs`, `choices` or `cloze`."""
    num_tasks: int
    accuracy: float
    """Share of pairs whose good text is likelier, of choices whose answer is likeliest, or of greedy answers."""
    accuracy_by_length: float | None
    """Choices only: the share whose answer has the largest log-probability a byte."""
    bits_per_byte: float | None
    """Cloze only: of all answers together."""
    chance: float | None
    """The accuracy of a guess; None for cloze."""


def score_tasks(scorer: Scorer, tasks: Sequence[Task]) -> list[GroupScore]:
    """The scores of each group of `tasks`, in the order of their first tasks; a group with two kinds has two scores."""
    requests = [_requests(task) for task in tasks]
    scores = iter(scorer.score([request for each in requests for request in each]))
    groups: dict[tuple[str, str], list[tuple[Task, list[Likelihood]]]] = {}
    for task, each in zip(tasks, requests, strict=True):
        found = list(islice(scores, len(each)))
        groups.setdefault((task.group, _KINDS[type(task)]), []).append((task, found))
    return [_group_score(group, kind, answered) for (group, kind), answered in groups.items()]


_KINDS = {MinimalPair: "pairs", MultipleChoice: "choices", Cloze: "cloze"}


def _requests(task: Task) -> list[Request]:
    match task:
        case MinimalPair(good, bad):
            return [Request("", good), Request("", bad)]
        case MultipleChoice(context, choices):
            return [Request(context, choice) for choice in choices]
        case Cloze(context, answer):
            return [Request(context, answer)]


def _group_score(group: str, kind: str, answered: Sequence[tuple[Task, list[Likelihood]]]) -> GroupScore:
    scores = [found for _, found in answered]
    right = [_right_place(task) for task, _ in answered]
    by_length = bits = chance = None
    if kind == "cloze":
        accuracy = fmean(found[0].is_greedy for found in scores)
        num_bytes = sum(found[0].num_bytes for found in scores)
        bits = sum(found[0].bits_per_byte * found[0].num_bytes for found in scores) / num_bytes
    else:
        raw = [[each.log_probability for each in found] for found in scores]
        accuracy = fmean(map(_is_largest, raw, right))
        chance = fmean(1 / len(found) for found in scores)
    if kind == "choices":
        per_byte = [[-each.bits_per_byte for each in found] for found in scores]
        by_length = fmean(map(_is_largest, per_byte, right))
    return GroupScore(group, kind, len(answered), accuracy, by_length, bits, chance)


def _right_place(task: Task) -> int:
    """The index of the right text among the requests of a task."""
    return task.answer if isinstance(task, MultipleChoice) else 0


def _is_largest(values: Sequence[float], place: int) -> bool:
    """Whether the value at `place` is larger than every other one."""
    return all(values[place] > value for other, value in enumerate(values) if other != place)
