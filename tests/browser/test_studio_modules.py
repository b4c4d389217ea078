"""Pure functions of the page against their definitions, in the browser that runs them."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from studio_visits import Start

pytestmark = pytest.mark.browser

Call = Callable[..., Any]


@pytest.fixture
def call(visit: Start) -> Call:
    """A function that calls a function of a module, such as `parts/series.js`."""
    page = visit().open("#/playground")

    def call(module: str, name: str, *arguments: object) -> Any:
        script = "async ([module, name, values]) => (await import(`/studio/page/${module}`))[name](...values)"
        return page.evaluate(script, [module, name, list(arguments)])

    return call


def test_smoothing_is_the_mean_with_geometric_weights(call: Call) -> None:
    values, weight = [3.0, 1.0, None, 4.0, 1.0, 5.0], 0.7
    smoothed = call("parts/series.js", "smooth", values, weight)
    known = [value for value in values if value is not None]
    expected = []
    for count in range(1, len(known) + 1):
        weights = [weight ** (count - 1 - k) for k in range(count)]
        expected.append(sum(w * v for w, v in zip(weights, known, strict=False)) / sum(weights))
    assert smoothed[2] is None
    assert [value for value in smoothed if value is not None] == pytest.approx(expected)
    assert call("parts/series.js", "smooth", [2.0] * 5, 0.99) == pytest.approx([2.0] * 5)


def test_logarithmic_axes_leave_out_what_they_cannot_show(call: Call) -> None:
    axes = {"logX": True, "logY": True}
    points = call("parts/series.js", "drawablePoints", [0, 1, 2, 3, 4], [5, 4, None, -1, 2], axes)
    assert points == [[1, 4], [4, 2]]


def test_appended_rows_do_not_repeat_a_step(call: Call) -> None:
    joined = call(
        "parts/series.js", "appendColumns", {"step": [1, 2], "loss": [5, 4]}, {"step": [2, 3], "loss": [9, 3]}
    )
    assert joined == {"step": [1, 2, 3], "loss": [5, 4, 3]}


def test_a_place_on_another_axis_is_between_its_steps(call: Call) -> None:
    assert call("parts/series.js", "stepAt", [0, 10, 20], [0, 100, 300], 200) == 15


def test_a_zoom_stays_within_the_data_and_ends_as_all(call: Call) -> None:
    assert call("parts/chart_zoom.js", "zoomedRange", [0, 100], [0, 100], 50, 0.5) == [25, 75]
    assert call("parts/chart_zoom.js", "zoomedRange", [0, 100], [0, 100], 0, 0.5) == [0, 50]
    assert call("parts/chart_zoom.js", "zoomedRange", [25, 75], [0, 100], 50, 4) is None


def test_events_are_parsed_as_the_standard_says(call: Call) -> None:
    assert call("parts/events.js", "parseEvent", 'event: token\ndata: {"id":\ndata: 1}') == {
        "name": "token",
        "data": {"id": 1},
    }
    assert call("parts/events.js", "parseEvent", ": keep-alive") is None


def test_pieces_show_what_cannot_be_seen(call: Call) -> None:
    assert call("parts/tokens.js", "visiblePiece", " a b\n\t\x07 ") == "·a b⏎⇥\\x07·"
    assert call("parts/tokens.js", "tokenName", {"id": 1, "piece": "\ufffd", "bytes": "e4b8"}) == "<E4 B8>"
    assert bytes.fromhex(call("parts/tokens.js", "hexBytes", "好")) == "好".encode()


def test_numbers_are_written_as_people_read_them(call: Call) -> None:
    assert call("parts/language.js", "formatNumber", 1234567) == "1,234,567"
    assert call("parts/language.js", "formatNumber", math.pi) == "3.142"
    assert call("parts/language.js", "formatTick", 100500, 100) == "100,500"
    assert call("parts/language.js", "formatTick", 100500, 50000) == "101K"
    assert call("parts/language.js", "formatTick", 1.5525, 0.0005) == "1.5525"
    assert call("parts/language.js", "formatBytes", 540 * 2**20) == "540 MiB"
    assert call("parts/language.js", "formatDuration", 3 * 3600 + 125) == "3 h 2 min"
