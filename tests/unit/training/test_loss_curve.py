"""The curve is well-formed SVG that shows the losses it was given."""

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tinyllm.training.loss_curve import MAX_POINTS, draw_loss_curve

SVG = "{http://www.w3.org/2000/svg}"


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


def test_a_long_run_stays_small_and_keeps_its_last_point() -> None:
    records = [{"step": s, "loss": 1.0} for s in range(1, 20_001)]
    raw, *_ = polylines(draw_loss_curve(records, title="long"))
    assert len(raw) <= MAX_POINTS + 1
    assert raw[-1][0] == pytest.approx(740)


def test_skipped_steps_and_an_empty_run_are_no_trouble() -> None:
    ElementTree.fromstring(draw_loss_curve([], title="empty"))
    ElementTree.fromstring(draw_loss_curve([{"step": 1, "loss": None}, {"step": 2, "loss": math.nan}], title="bad"))
