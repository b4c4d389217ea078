"""Tests that a corpus is divided completely, evenly, and with few files read twice."""

import random

import pytest

from tinyllm.shards.pieces import Division


@pytest.mark.parametrize("num_tasks", [1, 2, 7, 100])
def test_each_file_is_in_one_piece_and_each_batch_has_one_task(num_tasks: int) -> None:
    draw = random.Random(num_tasks)
    for _ in range(50):
        sizes = [draw.choice([0, 1, 10, 5000]) for _ in range(draw.randint(1, 60))]
        division = Division(sizes, num_tasks)
        assert [place for piece in division.pieces for place in piece.places] == list(range(len(sizes)))
        for piece in division.pieces:
            assert {division.task_of(piece, batch) for batch in range(50)} <= set(piece.tasks)
        tasks = [set(range(num_tasks)) & {task for piece in division.pieces for task in piece.tasks}]
        assert all(division.pieces_of(task) for task in tasks[0])
        shared = sum(len(piece.tasks) - 1 for piece in division.pieces)
        assert shared <= num_tasks - 1, "at most one file lies across each cut"


def test_tasks_have_equal_work() -> None:
    """A batch has about the same size everywhere, so that its task's count measures its work."""
    sizes = [30_000, 500_000, *[2000] * 100, 270_000]
    division = Division(sizes, 8)
    work = [0] * 8
    for piece in division.pieces:
        for batch in range(piece.num_bytes // 1000):
            work[division.task_of(piece, batch)] += 1
    assert sum(work) == sum(sizes) // 1000
    assert max(work) < 1.05 * sum(work) / 8


def test_the_division_of_known_sizes() -> None:
    """100 bytes for 4 tasks: the cuts are at 25, 50 and 75."""
    pieces = Division([10, 10, 60, 0, 20], 4).pieces
    assert [(list(piece.places), list(piece.tasks)) for piece in pieces] == [
        ([0, 1], [0]),
        ([2], [0, 1, 2, 3]),
        ([3, 4], [3]),
    ]
