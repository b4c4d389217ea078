"""The loss curve as a self-contained SVG, without a plotting library. Reads and writes no files.

It draws the raw training loss, a moving average over a fiftieth of the run, and the validation loss.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 44, 46
MAX_POINTS = 1200  # more points are not visible and make the file large

Point = tuple[float, float]


def draw_loss_curve(records: Sequence[dict[str, Any]], title: str) -> str:
    """The SVG text for `records` of metrics.jsonl; an empty frame if no record has a loss."""
    training = _series(records, "loss")
    validation = _series(records, "validation_loss")
    frame = _Frame(training + validation)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>Loss of {escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" fill="#222">{escape(title)}: loss (nats a token)</text>',
        frame.axes(),
        frame.line(_thin(training), "#4477aa", width=1, opacity=0.25),
        frame.line(_thin(_smooth(training)), "#4477aa", width=2),
        frame.line(validation, "#cc3311", width=2, dots=True),
        _legend(training, validation),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


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
    """Maps (step, loss) to coordinates on the page, in pixels."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.max_step = max([step for step, _ in points], default=1) or 1
        losses = [loss for _, loss in points] or [0.0, 1.0]
        self.low, self.high = math.floor(min(losses) * 2) / 2, math.ceil(max(losses) * 2) / 2
        if self.low == self.high:
            self.high += 0.5

    def place(self, point: Point) -> Point:
        step, loss = point
        x = LEFT + step / self.max_step * (WIDTH - LEFT - RIGHT)
        y = TOP + (self.high - loss) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
        return x, y

    def line(self, points: Sequence[Point], color: str, width: int, opacity: float = 1, dots: bool = False) -> str:
        placed = [self.place(point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        drawn = f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}" opacity="{opacity}"/>'
        if dots:
            drawn += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in placed)
        return drawn

    def axes(self) -> str:
        parts = []
        for i in range(6):
            loss = self.low + (self.high - self.low) * i / 5
            _, y = self.place((0, loss))
            parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e4e4e4"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{loss:.1f}</text>')
            step = self.max_step * i / 5
            x, _ = self.place((step, self.low))
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#555">{step:,.0f}</text>'
            )
        parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle" fill="#555">step</text>')
        return "".join(parts)


def _legend(training: Sequence[Point], validation: Sequence[Point]) -> str:
    entries = [("#4477aa", "training", _smooth(training)), ("#cc3311", "validation", validation)]
    drawn = []
    for i, (color, name, points) in enumerate(entries):
        value = f" {points[-1][1]:.3f}" if points else ""
        x = WIDTH - RIGHT - 300 + 155 * i
        drawn.append(f'<rect x="{x}" y="15" width="14" height="4" fill="{color}"/>')
        drawn.append(f'<text x="{x + 20}" y="22" fill="#222">{name}{value}</text>')
    return "".join(drawn)


def _series(records: Sequence[dict[str, Any]], name: str) -> list[Point]:
    return [(r["step"], r[name]) for r in records if isinstance(r.get(name), int | float) and math.isfinite(r[name])]


def _smooth(points: Sequence[Point]) -> list[Point]:
    """Exponential moving average over about a fiftieth of the points, corrected for its start."""
    keep = 1 - 1 / max(1, len(points) / 50)
    mean, weight, smoothed = 0.0, 0.0, []
    for step, loss in points:
        mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
        smoothed.append((step, mean / weight))
    return smoothed


def _thin(points: Sequence[Point]) -> list[Point]:
    stride = -(-len(points) // MAX_POINTS) if points else 1
    return [*points[:-1:stride], *points[-1:]]
