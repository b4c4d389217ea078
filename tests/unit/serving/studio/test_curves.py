"""Curves: exact for small logs, bounded for large ones."""

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio_folder import TOKENS_PER_STEP, evaluation, lines_of_run, update, write_lines
from tinyllm.machine.system import peak_memory_bytes
from tinyllm.serving.errors import ApiError
from tinyllm.serving.studio.curves import EXACT_BYTES, Cursor, Curves, choose, read_curves, read_news

SETTINGS: dict[str, Any] = {"tokens_per_step": TOKENS_PER_STEP, "eval_interval": 10}


def read(path: Path, points: int = 1_500, **options: Any) -> Curves:
    return read_curves(path, points, **(SETTINGS | options))


def extremes(steps: Sequence[int], losses: Sequence[float], points: int) -> list[int]:
    """The steps of the first and last point, and of the extremes of equal parts of the others, by definition."""
    count = (points - 2) // 2
    edges = [1 + (len(steps) - 2) * number // count for number in range(count + 1)]
    kept = {steps[0], steps[-1]}
    for first, last in pairwise(edges):
        part = range(first, last)
        kept |= {steps[min(part, key=losses.__getitem__)], steps[max(part, key=losses.__getitem__)]}
    return sorted(kept)


def test_the_evaluation_of_a_stop_is_drawn_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_lines(path, lines_of_run(30))
    stops = [{"step": 20, "validation_loss": 9.0}, {"step": 25, "validation_loss": 1.25, "bits_per_byte": 0.5}]
    found = read(path, stops=stops).evaluation
    assert found["step"] == [0, 10, 20, 25, 30]
    assert found["validation_loss"][3] == 1.25
    assert found["seconds"][3] == 12.5
    assert 9.0 not in found["validation_loss"]
    assert read(path, stops=stops, from_step=26).evaluation["step"] == [30]


def test_a_small_log_is_given_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = lines_of_run(100)
    write_lines(path, lines)
    found = read(path)
    assert found.num_lines == len(lines)
    updates = [line for line in lines if "loss" in line]
    assert found.training == {
        "step": list(range(1, 101)),
        "tokens": [step * TOKENS_PER_STEP for step in range(1, 101)],
        "seconds": [step * 0.5 for step in range(1, 101)],
        "loss": [line["loss"] for line in updates],
        "learning_rate": [1e-3] * 100,
        "gradient_norm": [1.5] * 100,
        "tokens_per_second": [128.0] * 100,
        "memory_bytes": [None] * 100,
    }
    assert found.evaluation["step"] == list(range(0, 101, 10))
    assert found.evaluation["validation_loss"] == [line["validation_loss"] for line in lines if "loss" not in line]
    assert found.evaluation["bits_per_byte"] == [2.0] * 11
    assert found.evaluation["training_loss"] == [None] * 11
    assert found.evaluation["seconds"][1:] == [step * 0.5 for step in range(10, 101, 10)]
    assert all(len(column) == 11 for column in found.evaluation.values())


@pytest.mark.parametrize("points", [4, 10, 50, 101, 999])
def test_fewer_points_are_the_extremes_of_equal_parts(points: int, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    updates = [update(step) for step in range(1, 2_002)]
    write_lines(path, updates)
    found = read(path, points).training
    assert len(found["step"]) <= points
    assert found["step"] == extremes(range(1, 2_002), [line["loss"] for line in updates], points)
    assert found["loss"] == [updates[step - 1]["loss"] for step in found["step"]]


def test_an_outlier_is_never_lost(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [update(step, 1.0) for step in range(1, 5_001)]
    lines[3_210] = update(3_211, 77.0)
    write_lines(path, lines)
    assert 77.0 in read(path, 20).training["loss"]


@pytest.mark.parametrize("points", [2, 3])
def test_two_points_are_the_ends(points: int) -> None:
    assert choose(np.arange(10.0), points).tolist() == [0, 9]


def test_numbers_that_are_none_are_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    values: list[Any] = [math.nan, math.inf, None, "1", True, [1], 10**400, {}]
    write_lines(path, [update(number, 1.0) | {"loss": value} for number, value in enumerate(values, 1)])
    found = read(path).training
    assert found["loss"] == [None] * len(values)
    assert read(path, 4).training["step"][0] == 1


def test_a_range_of_steps_has_its_own_points_and_the_same_seconds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_lines(path, lines_of_run(1_000))
    found = read(path, from_step=200, to_step=300)
    assert found.training["step"] == list(range(200, 301))
    assert found.training["seconds"][0] == 100.0
    assert found.evaluation["step"] == list(range(200, 301, 10))
    assert read(path, from_step=2_000).training["step"] == []
    assert read(path, from_step=300, to_step=200).training["step"] == []


def test_news_follow_a_cursor(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_lines(path, lines_of_run(30))
    cursor = Cursor.parse(str(read(path).cursor))
    assert read_news(path, cursor, 500, **SETTINGS).num_lines == 0  # type: ignore[union-attr]
    write_lines(path, [update(31), update(32), evaluation(32)], "a")
    news = read_news(path, cursor, 500, **SETTINGS)
    assert news is not None
    assert (news.training["step"], news.training["seconds"]) == ([31, 32], [15.5, 16.0])
    assert news.evaluation["step"] == [32]
    write_lines(path, lines_of_run(20))
    assert read_news(path, cursor, 500, **SETTINGS) is None


def test_a_missing_log_is_empty_and_begins_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    found = read(path)
    assert (found.num_lines, found.training["step"], found.evaluation["step"]) == (0, [], [])
    write_lines(path, lines_of_run(5))
    news = read_news(path, found.cursor, 500, **SETTINGS)
    assert news is not None
    assert news.training["step"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("text", ["", "1", "-1-2-3.000", "1-2-3", "1-2-nan", "9" * 40 + "-1-1.000", "1-2-3.000\n"])
def test_a_wrong_cursor_is_an_error_of_the_request(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        Cursor.parse(text)
    assert caught.value.status == 400


def test_skipped_updates_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [update(1), update(2) | {"loss": None, "grad_norm": None, "skipped": True}, update(3)])
    found = read(path)
    assert found.skips == [2]
    assert found.training["loss"][1] is None


def write_large(path: Path, num_steps: int, eval_interval: int = 1_000) -> None:
    """A log of about 150 bytes a step, written quickly: every block of lines differs in its steps alone."""
    with path.open("w") as file:
        for first in range(1, num_steps + 1, eval_interval):
            file.writelines(
                f'{{"step": {step}, "epoch": 0.1234, "loss": {2 + 1e6 / (step + 1e6):.6f}, "learning_rate": 0.00100'
                f'123, "grad_norm": 1.2345678901234, "tokens_per_second": 64000.0}}\n'
                for step in range(first, first + eval_interval)
            )
            last = first + eval_interval - 1
            file.write(f'{{"step": {last}, "validation_loss": {2 + 1e6 / (last + 1e6)}, "bits_per_byte": 1.5}}\n')


def check_large(path: Path, num_steps: int, eval_interval: int) -> float:
    """Reads a large log, checks the answer, and returns the seconds of processor time that it took."""
    assert path.stat().st_size > EXACT_BYTES
    settings: dict[str, Any] = {"tokens_per_step": TOKENS_PER_STEP, "eval_interval": eval_interval}
    begin = time.process_time()
    found = read_curves(path, 1_500, **settings)
    seconds = time.process_time() - begin
    steps = found.training["step"]
    assert 1_000 < len(steps) <= 1_500
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (1, num_steps)
    assert max(np.diff(steps)) < num_steps / 300
    assert found.training["loss"] == [round(2 + 1e6 / (step + 1e6), 6) for step in steps]
    assert found.training["seconds"][-1] == pytest.approx(num_steps * 1e-3, rel=1e-3)
    evaluated = found.evaluation["step"]
    assert all(step % eval_interval == 0 for step in evaluated)
    assert len(evaluated) == min(num_steps // eval_interval, 1_500)
    assert evaluated[-1] == num_steps
    assert found.num_lines == pytest.approx(num_steps, rel=0.01)
    middle = num_steps // 2
    zoomed = read_curves(path, 1_500, **settings, from_step=middle, to_step=middle + 100)
    assert zoomed.training["step"] == list(range(middle, middle + 101))
    assert zoomed.training["seconds"][0] == pytest.approx(middle * 1e-3, rel=1e-3)
    return seconds


def test_a_log_of_200_000_lines_is_sampled(tmp_path: Path) -> None:
    write_large(tmp_path / "metrics.jsonl", 200_000)
    check_large(tmp_path / "metrics.jsonl", 200_000, 1_000)


@pytest.mark.slow
def test_a_log_of_10_million_lines_takes_2_seconds_and_little_memory(tmp_path: Path) -> None:
    write_large(tmp_path / "metrics.jsonl", 10_000_000)
    before = peak_memory_bytes() or 0
    assert check_large(tmp_path / "metrics.jsonl", 10_000_000, 1_000) < 2
    assert (peak_memory_bytes() or 0) - before < 200 * 2**20
