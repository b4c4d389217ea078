"""The curve is well-formed SVG and shows the given losses."""

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tinyllm.training.loss_curve import MAX_POINTS, CurveRecords, draw_loss_curve

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
