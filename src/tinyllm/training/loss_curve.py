"""The loss curve as a self-contained SVG, without a plotting library. Reads and writes no files.

It draws the training loss of each update, its local trend, and the validation loss. The best point and the stops of the
run are marked. The loss axis is logarithmic. The first losses are cut off if they would flatten the rest.
"""

import math
from collections.abc import Sequence
from html import escape
from itertools import accumulate
from typing import Any

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 56, 46
LONGEST_TITLE = 40
"""Characters of a title."""
MAX_POINTS = 1200  # more points are not visible and make the file large
TRAINING, VALIDATION, STOP, INK, GRAY = "#4477aa", "#cc3311", "#999", "#222", "#555"
BACKGROUND, GRID = "#fff", "#e4e4e4"
PAGE_COLOURS = {
    f'fill="{BACKGROUND}"': 'fill="none"',
    f'fill="{INK}"': 'fill="currentColor"',
    f'fill="{GRAY}"': 'fill="currentColor" fill-opacity="0.75"',
    f'stroke="{GRID}"': 'stroke="currentColor" stroke-opacity="0.15"',
}
"""Attribute of a curve in a file of its own -> attribute on a page."""
CUT_PART = 0.05
"""Part of the run whose training losses may lie above the frame."""
SMOOTHED_PART = 0.04
"""Width of the window of the trend / length of the run."""
MARGIN = 0.04
"""Space above and below the curves / height of the curves."""

TICKS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (8, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)),
    (30, (1, 1.5, 2, 3, 5, 7)),
    (1e4, (1, 2, 5)),
    (math.inf, (1,)),
)
"""Highest / lowest loss of the frame below a limit -> digits of the ticks, for each power of ten."""

Point = tuple[float, float]


def draw_loss_curve(records: Sequence[dict[str, Any]], title: str, stops: Sequence[int] = ()) -> str:
    """The SVG text for `records` of metrics.jsonl; an empty frame if no record has a loss.

    `stops` are the steps that the run stopped at.
    """
    training = _series(records, "loss")
    validation = _series(records, "validation_loss")
    trend = smooth(training)
    frame = _Frame(training, trend, validation)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>Loss of {escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{BACKGROUND}"/>',
        f'<clipPath id="frame"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>',
        f'<text x="{LEFT}" y="22" font-size="15" fill="{INK}">{escape(_shortened(title))}: '
        "loss (nats per token)</text>",
        frame.axes(),
        frame.stops(stops),
        frame.line(_thin(training), TRAINING, width=1, opacity=0.25),
        frame.line(_thin(trend), TRAINING, width=2),
        frame.line(validation, VALIDATION, width=2, dots=True),
        frame.best(validation),
        _legend(trend, validation, stops),
        frame.beginning([*training[:1], *validation[:1]]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def as_part_of_page(svg: str) -> str:
    """A drawn curve without background, in the colour of the letters around it: for light and dark pages alike."""
    for drawn, themed in PAGE_COLOURS.items():
        svg = svg.replace(drawn, themed)
    return svg


def smooth(points: Sequence[Point]) -> list[Point]:
    """The trend at each point: the value there of a straight line fitted to the points around it (least squares).

    The window has `SMOOTHED_PART` of the points; at both ends of the run it is one-sided. The trend of a
    straight line is the line: unlike a moving average, it neither lags nor bends at the ends. (Local linear regression:
    Cleveland 1979.)
    """
    half = max(1, round(len(points) * SMOOTHED_PART / 2))
    if len(points) <= 2 * half:
        return list(points)
    # Steps count from the middle of the run, so that sums of squares keep their precision.
    origin = points[len(points) // 2][0]
    columns = [(x, y, x * x, x * y) for x, y in ((step - origin, loss) for step, loss in points)]
    totals = [[0.0, *accumulate(column)] for column in zip(*columns, strict=True)]
    smoothed = []
    for place, (step, _) in enumerate(points):
        first, last = max(0, place - half), min(len(points), place + half + 1)
        count = last - first
        sum_x, sum_y, sum_xx, sum_xy = (total[last] - total[first] for total in totals)
        slope = (count * sum_xy - sum_x * sum_y) / (count * sum_xx - sum_x * sum_x)
        smoothed.append((step, sum_y / count + slope * (step - origin - sum_x / count)))
    return smoothed


def round_ticks(low: float, high: float, num_steps: int) -> list[float]:
    """The multiples of 1, 2 or 5 times a power of ten between `low` and `high`: about `num_steps` or fewer."""
    rough = (high - low) / num_steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


class CurveRecords:
    """Records of metrics, thinned to at most `2 * MAX_POINTS` of each kind however long the run is."""

    def __init__(self) -> None:
        self._kept: dict[str, list[dict[str, Any]]] = {"loss": [], "validation_loss": []}
        self._newest: dict[str, dict[str, Any]] = {}
        self._num_seen = dict.fromkeys(self._kept, 0)
        self._strides = dict.fromkeys(self._kept, 1)

    def add(self, record: dict[str, Any]) -> None:
        """Adds one line of metrics; lines come in the order of steps."""
        for name, kept in self._kept.items():
            if name not in record:
                continue
            self._newest[name] = {"step": record["step"], name: record[name]}
            if self._num_seen[name] % self._strides[name] == 0:
                kept.append(self._newest[name])
            self._num_seen[name] += 1
            if len(kept) > 2 * MAX_POINTS:
                del kept[1::2]
                self._strides[name] *= 2

    def records(self) -> list[dict[str, Any]]:
        """Evenly spaced records of each kind, including the newest one."""
        return [
            record
            for name, kept in self._kept.items()
            for record in (kept if not kept or kept[-1] is self._newest[name] else [*kept, self._newest[name]])
        ]


class _Frame:
    """Maps (step, loss) to coordinates on the page, in pixels: steps evenly, losses by their logarithm."""

    def __init__(self, training: Sequence[Point], trend: Sequence[Point], validation: Sequence[Point]) -> None:
        self.max_step = max([step for step, _ in [*training, *validation]], default=1) or 1
        visible = _visible_losses(training, trend, validation, self.max_step) or [1.0, 2.0]
        low, high = math.log(min(visible)), math.log(max(visible))
        height = max(high - low, 0.1)
        self._low, self._high = low - MARGIN * height, high + MARGIN * height

    def place(self, point: Point) -> Point:
        """The point's coordinates; a loss that is not positive lies below the frame."""
        step, loss = point
        x = LEFT + step / self.max_step * (WIDTH - LEFT - RIGHT)
        height = math.log(loss) if loss > 0 else self._low - 1
        y = TOP + (self._high - height) / (self._high - self._low) * (HEIGHT - TOP - BOTTOM)
        return x, y

    def line(self, points: Sequence[Point], color: str, width: int, opacity: float = 1, dots: bool = False) -> str:
        """The points joined by lines, inside the frame."""
        placed = [self.place(point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        drawn = f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}" opacity="{opacity}"/>'
        if dots or len(points) == 1:  # a line of one point is invisible
            drawn += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in placed)
        return f'<g clip-path="url(#frame)">{drawn}</g>'

    def axes(self) -> str:
        """Grid lines at round losses, and round steps below the frame."""
        parts = []
        for loss in self._loss_ticks():
            _, y = self.place((0, loss))
            parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="{GRID}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{GRAY}">{loss:g}</text>')
        for step in round_ticks(0, self.max_step, 6):
            if step == int(step):
                x, _ = self.place((step, 1))
                parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{step:,.0f}"))
        parts.append(_text(WIDTH / 2, HEIGHT - 8, "step"))
        return "".join(parts)

    def stops(self, steps: Sequence[int]) -> str:
        """A dashed line at each stop."""
        places = [self.place((step, 1))[0] for step in steps if 0 < step <= self.max_step]
        return "".join(
            f'<line class="stop" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="{STOP}" '
            'stroke-dasharray="4 3"/>'
            for x in places
        )

    def best(self, validation: Sequence[Point]) -> str:
        """A ring around the lowest validation loss."""
        if not validation:
            return ""
        x, y = self.place(min(validation, key=lambda point: point[1]))
        return f'<g clip-path="url(#frame)">{_ring(x, y)}</g>'

    def beginning(self, firsts: Sequence[Point]) -> str:
        """The first loss, if it lies above the frame."""
        highest = max([loss for _, loss in firsts], default=0.0)
        if not highest or math.log(highest) <= self._high:
            return ""
        return (
            f'<text x="{WIDTH - RIGHT}" y="22" text-anchor="end" fill="{GRAY}">'
            f"begins at {highest:.1f}, above the frame</text>"
        )

    def _loss_ticks(self) -> list[float]:
        """Round losses: evenly spaced in a narrow range, else multiples of powers of ten."""
        low, high = math.exp(self._low), math.exp(self._high)
        if high / low < 2.5:
            return round_ticks(low, high, 7)
        factors = next(factors for limit, factors in TICKS if high / low < limit)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        return [tick for tick in ticks if low <= tick <= high]


def _visible_losses(
    training: Sequence[Point], trend: Sequence[Point], validation: Sequence[Point], max_step: float
) -> list[float]:
    """The losses that fix the range of the axis: all of a short run, else those after the first `CUT_PART`.

    Single updates above the highest trend do not count: they are noise, and may leave the frame.
    """
    begin = CUT_PART * max_step if len(training) > 2 / CUT_PART else 0
    highest = [loss for step, loss in [*trend, *validation] if step >= begin]
    lowest = [loss for step, loss in training if step >= begin]
    return [loss for loss in [*highest, *([min(lowest)] if lowest else [])] if loss > 0]


def _shortened(title: str) -> str:
    """`title` with room for the rest of its line."""
    return title if len(title) <= LONGEST_TITLE else f"{title[: LONGEST_TITLE - 1]}…"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="{GRAY}">{text}</text>'


def _ring(x: float, y: float) -> str:
    """The mark of the best validation loss."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="{VALIDATION}" stroke-width="1.5"/>'


def _legend(trend: Sequence[Point], validation: Sequence[Point], stops: Sequence[int]) -> str:
    entries = [(TRAINING, "training", trend), (VALIDATION, "validation", validation)]
    drawn = []
    for i, (color, name, points) in enumerate(entries):
        value = f" {points[-1][1]:.3f}" if points else ""
        x = LEFT + 130 * i
        drawn.append(f'<rect x="{x}" y="36" width="14" height="4" fill="{color}"/>')
        drawn.append(f'<text x="{x + 20}" y="43" fill="{INK}">{name}{value}</text>')
    if validation:
        step, loss = min(validation, key=lambda point: point[1])
        drawn.append(_ring(LEFT + 267, 39))
        drawn.append(f'<text x="{LEFT + 280}" y="43" fill="{INK}">best {loss:.3f} at step {step:,.0f}</text>')
    if stops:
        x = LEFT + 470
        drawn.append(f'<line x1="{x}" y1="32" x2="{x}" y2="46" stroke="{STOP}" stroke-dasharray="4 3"/>')
        drawn.append(f'<text x="{x + 9}" y="43" fill="{INK}">stopped, then resumed</text>')
    return "".join(drawn)


def _series(records: Sequence[dict[str, Any]], name: str) -> list[Point]:
    return [(r["step"], r[name]) for r in records if isinstance(r.get(name), int | float) and math.isfinite(r[name])]


def _thin(points: Sequence[Point]) -> list[Point]:
    stride = -(-len(points) // MAX_POINTS) if points else 1
    return [*points[:-1:stride], *points[-1:]]
