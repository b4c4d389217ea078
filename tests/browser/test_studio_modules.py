"""Pure functions of the page against their definitions, in the browser that runs them."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server_process import ServerProcess

pytestmark = pytest.mark.browser

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(chromium: Any, studio: ServerProcess) -> Iterator[Call]:
    """A function that calls a function of a module, such as `parts/series.js`. All share one page: they are pure."""
    context = chromium.open().new_context(locale="en-US")
    page = context.new_page()
    page.goto(f"{studio.url}/#/playground")

    def call(module: str, name: str, *arguments: object) -> Any:
        script = "async ([module, name, values]) => (await import(`/studio/page/${module}`))[name](...values)"
        return page.evaluate(script, [module, name, list(arguments)])

    yield call
    context.close()


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


def test_a_logarithmic_axis_has_lines_however_narrow_it_is(call: Call) -> None:
    assert call("parts/chart_range.js", "logLines", 1.8, 1.96) == [1.8, 1.85, 1.9, 1.95]
    assert call("parts/chart_range.js", "logLines", 0.9, 30)[:4] == [0.9, 1, 2, 3]
    mebi = 2**20
    assert call("parts/chart_range.js", "logLines", 400 * mebi, 480 * mebi, True) == [
        place * mebi for place in (400, 416, 432, 448, 464, 480)
    ]
    assert call("parts/chart_range.js", "logLines", 3, 40, True) == [4, 8, 16, 32]


def test_labels_of_an_axis_do_not_touch(call: Call) -> None:
    labels = call(
        "parts/chart_range.js", "spacedLabels", ["10 s", "20 s", "50 s", "", "1 min"], [0, 20, 60, 70, 120], 6
    )
    assert labels == ["10 s", "", "50 s", "", "1 min"]


def test_signs_of_one_place_stand_side_by_side(call: Call) -> None:
    kinds = ("stop", "resume", "save", "stop")
    marks = [{"x": 5 if place < 3 else 9, "kind": kind, "color": "--series-1"} for place, kind in enumerate(kinds)]
    assert call("parts/chart_plot.js", "signShifts", marks) == [-0.5, 0.5, 0, 0]


def test_a_token_of_the_chat_is_named_by_its_bytes(call: Call) -> None:
    found = call("views/playground_chat_store.js", "shownText", {"token": "bytes:\\xe4", "bytes": [0xE4]})
    assert found == {"piece": "\ufffd", "bytes": "e4"}
    whole = {"token": "bytes:\\xe5\\xa5\\xbd", "bytes": list("好".encode())}
    assert call("views/playground_chat_store.js", "shownText", whole) == {"piece": "好"}
    assert call("views/playground_chat_store.js", "shownText", {"token": "</s>", "bytes": []}) == {"piece": "</s>"}


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
    ticks = [call("parts/language.js", "formatBytesTick", k * 2**27, 2**27) for k in (0, 1, 8, 9)]
    assert ticks == ["0", "128 MiB", "1,024 MiB", "1,152 MiB"]
    assert call("parts/language.js", "formatBytesTick", 5 * 2**28, 2**28) == "1.25 GiB"
    assert call("parts/language.js", "formatDuration", 3 * 3600 + 125) == "3 h 2 min"


def test_a_zoomed_chart_holds_its_curves_at_both_ends(call: Call) -> None:
    data = [[0, 10, 20, 30], [8, 4, 2, 1], [None, 100, None, 400]]
    found = call("parts/chart_range.js", "edgeValues", data, [5, 25], {})
    assert found == pytest.approx([6, 1.5, 325])  # the second curve begins after the left end
    found = call("parts/chart_range.js", "edgeValues", data[:2], [5, 25], {"logY": True})
    assert found == pytest.approx([math.sqrt(32), math.sqrt(2)])
    low, high = call("parts/chart_range.js", "valueRange", [2, 4, 6, 1.5], {})
    assert low <= 1.5
    assert high >= 6
    assert call("parts/chart_range.js", "valueRange", [None, None], {"fromZero": True}) == [0, 1]


def test_an_unknown_code_shows_the_words_of_the_server(call: Call) -> None:
    said = {"message": "This is new", "code": "from_the_future", "values": {}}
    assert call("parts/errors.js", "explain", said) == "This is new"
    said = {"message": "no", "code": "text_too_long", "values": {"tokens": 1300, "most": 256}}
    assert call("parts/errors.js", "explain", said) == "The text has 1,300 tokens; at most 256 can be shown."


def test_tokens_of_one_character_are_grouped(call: Call) -> None:
    def token(content: bytes) -> dict[str, str]:
        try:
            return {"piece": content.decode()}
        except UnicodeDecodeError:
            return {"piece": "\ufffd", "bytes": content.hex()}

    def groups(*parts: bytes) -> list[tuple[int, str]]:
        found = call("parts/characters.js", "groupCharacters", [token(part) for part in parts])
        assert [each["first"] for each in found] == [sum(e["count"] for e in found[:k]) for k in range(len(found))]
        return [(each["count"], each["text"]) for each in found]

    bear = "🐻".encode()
    assert groups(b"a", *(bytes([each]) for each in bear), b" b") == [(1, "a"), (4, "🐻"), (1, " b")]
    assert groups(b" \xe4\xbb", b"\x8e\xe5", b"\x89\x8d") == [(3, " 从前")]  # pieces across characters
    assert groups(bear[:1], bear[1:2], b"x") == [(1, "\ufffd"), (1, "\ufffd"), (1, "x")]  # never finished
    assert groups(b"\xff", *(bytes([each]) for each in bear)) == [(1, "\ufffd"), (4, "🐻")]
    assert (
        call("parts/characters.js", "jointLogprob", [{"logprob": -1}, {"logprob": -2}], {"first": 0, "count": 2}) == -3
    )
