"""The curve is well-formed SVG and shows the given losses."""

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tinyllm.training.loss_curve import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    TOP,
    CurveRecords,
    draw_loss_curve,
    round_ticks,
    smooth,
)

SVG = "{http://www.w3.org/2000/svg}"


def test_a_run_of_one_update_shows_its_point() -> None:
    root = ElementTree.fromstring(draw_loss_curve([{"step": 1, "loss": 5.0}], "run"))
    assert len(list(root.iter(f"{SVG}circle"))) == 2, "of the update and of the trend"


def test_a_long_title_leaves_room_for_the_first_loss() -> None:
    svg = draw_loss_curve([{"step": 1, "loss": 5.0}], "a" * 300)
    assert "a" * 39 + "…: loss" in svg
    assert "a" * 41 not in svg.partition("</title>")[2]


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(svg)
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]
        for line in root.iter(f"{SVG}polyline")
    ]


def test_a_falling_loss_falls_on_the_page() -> None:
    records = [{"step": s, "loss": 8 - s / 25} for s in range(1, 101)] + [{"step": 100, "validation_loss": 4.5}]
    svg = draw_loss_curve(records, title="a < b")
    raw, smooth, validation = polylines(svg)
    assert len(raw) == len(smooth) == 100
    assert all(later[0] > earlier[0] and later[1] > earlier[1] for earlier, later in pairwise(raw))
    assert len(validation) == 1
    assert "validation 4.500" in svg
    assert "a &lt; b" in svg


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def ticks(svg: str) -> tuple[list[float], list[int]]:
    """The losses on the vertical axis, and the steps on the horizontal one."""
    elements = list(ElementTree.fromstring(svg).iter(f"{SVG}text"))
    losses = [float(element.text or "") for element in elements if float(element.attrib["x"]) == LEFT - 8]
    steps = [element.text or "" for element in elements if float(element.attrib["y"]) == HEIGHT - BOTTOM + 18]
    return losses, [int(step.replace(",", "")) for step in steps]


def falling(num_steps: int, noise: float = 0.0) -> list[dict[str, float]]:
    """A run that falls from 14 to about 1, as those of the storybook recipe do, with evaluations."""
    draws = random.Random(3)
    records: list[dict[str, float]] = [{"step": 0, "validation_loss": 14.0}]
    for step in range(1, num_steps + 1):
        part = step / num_steps
        loss = 1 + 0.5 * math.exp(-3 * part) + 4 * math.exp(-20 * part) + 8 * math.exp(-400 * part)
        records.append({"step": step, "loss": loss + draws.gauss(0, noise)})
        if step % max(1, num_steps // 10) == 0:
            records.append({"step": step, "validation_loss": loss + 0.3 * max(0.0, part - 0.65)})
    return records


def test_the_first_losses_leave_room_for_the_rest() -> None:
    """The last nine tenths of the run fill more than half of the frame; a linear axis would give them a tenth."""
    svg = draw_loss_curve(falling(2000), title="run")
    _, trend, validation = polylines(svg)
    height = HEIGHT - TOP - BOTTOM
    assert (trend[-1][1] - trend[len(trend) // 10][1]) / height > 0.5
    assert validation[0][1] < TOP, "the first evaluation lies above the frame"
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in validation[1:])
    assert "begins at 14.0, above the frame" in texts(svg)
    assert not any("begins at" in text for text in texts(draw_loss_curve(falling(20), title="short")))


@pytest.mark.parametrize("num_steps", [7, 30, 600, 6000, 98_765])
def test_ticks_are_round_and_inside_the_frame(num_steps: int) -> None:
    losses, steps = ticks(draw_loss_curve(falling(num_steps)[:: max(1, num_steps // 2000)], title="run"))
    assert 4 <= len(losses) <= 10
    assert 3 <= len(steps) <= 8
    for loss in losses:
        assert float(f"{loss:.2g}") == loss
    gaps = {later - earlier for earlier, later in pairwise(steps)}
    assert len(gaps) == 1
    assert float(f"{gaps.pop():.1g}") in steps
    assert steps[0] == 0 < steps[-1] <= num_steps


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 600, [0, 100, 200, 300, 400, 500, 600]),
        (0, 7, [0, 2, 4, 6]),
        (1.1, 1.52, [1.1, 1.2, 1.3, 1.4, 1.5]),
        (0.0101, 0.0149, [0.011, 0.012, 0.013, 0.014]),
    ],
)
def test_round_ticks(low: float, high: float, expected: Sequence[float]) -> None:
    assert round_ticks(low, high, 6) == expected


def test_the_trend_of_a_straight_line_is_the_line() -> None:
    points = [(step, 9 - step / 100) for step in range(1, 501)]
    assert all(
        math.isclose(found, loss, abs_tol=1e-9) for (_, found), (_, loss) in zip(smooth(points), points, strict=True)
    )


def test_the_trend_is_unbiased_and_has_less_noise() -> None:
    """A moving average of the same window would lag by half of it: 0.1 here, ten times the error of the trend."""
    draws, slope = random.Random(1), 0.01
    exact = [(step, 20 - slope * step) for step in range(1, 1001)]
    noisy = [(step, loss + draws.gauss(0, 0.05)) for step, loss in exact]
    errors = [found - loss for (_, found), (_, loss) in zip(smooth(noisy), exact, strict=True)]
    assert abs(sum(errors) / len(errors)) < 0.005
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) < 0.05 / 4
    assert max(map(abs, errors)) < 0.05, "at both ends too"


def test_the_trend_of_few_points_is_the_points() -> None:
    assert smooth([]) == []
    assert smooth([(1, 2.0), (2, 5.0)]) == [(1, 2.0), (2, 5.0)]


def test_the_best_point_and_the_stops_are_marked() -> None:
    svg = draw_loss_curve(falling(1000), title="run", stops=[250, 500, 5000])
    root = ElementTree.fromstring(svg)
    rings = [circle for circle in root.iter(f"{SVG}circle") if circle.attrib["fill"] == "none"]
    _, _, validation = polylines(svg)
    lowest = max(validation, key=lambda point: point[1])
    assert (float(rings[0].attrib["cx"]), float(rings[0].attrib["cy"])) == lowest
    assert any(text.startswith("best 1.0") and text.endswith(" at step 700") for text in texts(svg))
    stops = [line for line in root.iter(f"{SVG}line") if line.attrib.get("class") == "stop"]
    places = [float(stop.attrib["x1"]) for stop in stops]
    assert places == pytest.approx([LEFT + 680 * part for part in (0.25, 0.5)]), "a stop after the last step is not"
    assert "stopped, then resumed" in texts(svg)
    assert "stopped, then resumed" not in texts(draw_loss_curve(falling(1000), title="run"))


def test_a_loss_of_zero_is_below_the_frame() -> None:
    records = [{"step": step, "loss": max(0.0, 1 - step / 50)} for step in range(1, 101)]
    raw, *_ = polylines(draw_loss_curve(records, title="learned by heart"))
    assert raw[-1][1] > HEIGHT - BOTTOM
    ElementTree.fromstring(draw_loss_curve([{"step": 1, "loss": 0.0}], title="only zero"))


def test_a_long_run_stays_small_and_keeps_its_last_point() -> None:
    records = [{"step": s, "loss": 1.0} for s in range(1, 20_001)]
    raw, *_ = polylines(draw_loss_curve(records, title="long"))
    assert len(raw) <= MAX_POINTS + 1
    assert raw[-1][0] == pytest.approx(740)


def test_skipped_steps_and_an_empty_run_give_a_curve() -> None:
    ElementTree.fromstring(draw_loss_curve([], title="empty"))
    ElementTree.fromstring(draw_loss_curve([{"step": 1, "loss": None}, {"step": 2, "loss": math.nan}], title="bad"))


def test_records_of_a_long_run_are_thinned_evenly_and_keep_the_newest() -> None:
    curve = CurveRecords()
    for step in range(1, 50_001):
        curve.add({"step": step, "loss": 1 / step})
        if step % 10 == 0:
            curve.add({"step": step, "validation_loss": 2 / step, "bits_per_byte": 1.0})
    training = [record["step"] for record in curve.records() if "loss" in record]
    validation = [record["step"] for record in curve.records() if "validation_loss" in record]
    assert (training[0], training[-1], validation[0], validation[-1]) == (1, 50_000, 10, 50_000)
    assert MAX_POINTS <= len(training) <= 2 * MAX_POINTS + 1
    assert len({later - earlier for earlier, later in pairwise(training[:-1])}) == 1


def test_few_records_are_all_kept() -> None:
    curve = CurveRecords()
    assert curve.records() == []
    records = [{"step": step, "loss": 1.0} for step in range(1, 9)]
    for record in records:
        curve.add(record)
    assert curve.records() == records
