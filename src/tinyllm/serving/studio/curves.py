"""The curves of a run from its metrics.jsonl, down-sampled to a number of points, in bounded time and memory.

Up to `EXACT_BYTES` every line counts. In a larger file, evenly spaced windows are read, and the evaluations are found
by their steps: both take the same time for any size.

Each curve keeps its first and last point, and the points of least and greatest loss of each interval.

Shapes: N lines that were read.
"""

import bisect
import math
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.serving.errors import ApiError
from tinyllm.serving.studio.step_log import Place, Record, StepLog

EXACT_BYTES = 16 * 2**20
SAMPLED_BYTES = 8 * 2**20
"""Bytes that are read of a larger file."""
LEAST_WINDOW_BYTES = 4096
EVALUATION_BYTES = 2048
"""Bytes after the beginning of a step's lines in which its evaluation stands."""
MOST_SKIPS = 500
TRAINING = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "gradient_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
    "memory_bytes": "memory_bytes",
}
"""Column -> key in a line of an update."""
EVALUATION = {
    "training_loss": "training_loss",
    "validation_loss": "validation_loss",
    "bits_per_byte": "bits_per_byte",
}
"""Column -> key in a line of an evaluation."""
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,10})-(\d{1,15}\.\d{3})")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cursor:
    """The place of a log up to which its lines are known, and the seconds of training before it."""

    place: Place
    seconds: float

    def __str__(self) -> str:
        return f"{self.place.offset}-{self.place.checksum}-{self.seconds:.3f}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor of a text. Raises ApiError for any other text than `str` gives."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ApiError(400, "cursor is none that this server gave; read the metrics again", param="cursor")
        return cls(Place(int(found[1]), int(found[2])), float(found[3]))


@dataclass(frozen=True)
class Curves:
    """The curves of a part of a log."""

    training: dict[str, list[Any]]
    """Column -> values: `step`, `tokens`, `seconds` and those of `TRAINING`; None where a line has no number."""
    evaluation: dict[str, list[Any]]
    num_lines: int
    """Lines of the part; an estimate if it is larger than `EXACT_BYTES`."""
    cursor: Cursor
    skips: list[int] = field(default_factory=list)
    """Steps of skipped updates, at most `MOST_SKIPS`; those in the lines that were read."""

    def fields(self) -> dict[str, Any]:
        """The object of the route."""
        return {
            "training": self.training,
            "evaluation": self.evaluation,
            "num_lines": self.num_lines,
            "cursor": str(self.cursor),
        }


class Columns:
    """The lines of one kind, one array of numbers for each column; NaN where a line has no number."""

    def __init__(self, keys: dict[str, str]) -> None:
        self._keys = keys
        self.steps = array("q")
        self.values = {name: array("d") for name in keys}

    def add(self, record: Record) -> None:
        """Adds one line."""
        self.steps.append(record["step"])
        for name, key in self._keys.items():
            self.values[name].append(_number(record.get(key)))

    def insert(self, records: Sequence[Record]) -> None:
        """Adds lines of other steps than those that are there, in the order of steps."""
        for record in records:
            place = bisect.bisect_left(self.steps, record["step"])
            if place < len(self.steps) and self.steps[place] == record["step"]:
                continue
            self.steps.insert(place, record["step"])
            for name, key in self._keys.items():
                self.values[name].insert(place, _number(record.get(key)))

    def thinned(
        self, points: int, criterion: str, seconds: Floats, tokens_per_step: int | None
    ) -> dict[str, list[Any]]:
        """The columns, and `step`, `tokens` and `seconds` (N,), of at most `points` lines chosen by `criterion`."""
        kept = choose(np.array(self.values[criterion]), points)
        steps = np.array(self.steps)[kept]
        columns: dict[str, list[Any]] = {
            "step": steps.tolist(),
            "tokens": [None if tokens_per_step is None else step * tokens_per_step for step in steps.tolist()],
            "seconds": _with_none(np.round(seconds[kept], 3)),
        }
        return columns | {name: _with_none(np.array(values)[kept]) for name, values in self.values.items()}


class Lines:
    """The lines that were read of a log, and the part of it that they stand for."""

    def __init__(self) -> None:
        self.training, self.evaluation = Columns(TRAINING), Columns(EVALUATION)
        self.gaps: set[int] = set()
        """Indexes of the updates before which lines were left out."""
        self.skips: list[int] = []
        self.num_lines = 0

    def add(self, records: Iterable[tuple[int, Record]]) -> None:
        """Adds lines that follow each other."""
        self.gaps.add(len(self.training.steps))
        count = 0
        for _, record in records:
            count += 1
            if "validation_loss" in record:
                self.evaluation.add(record)
            elif "loss" in record:
                self.training.add(record)
                if record.get("skipped") is True and len(self.skips) < MOST_SKIPS:
                    self.skips.append(record["step"])
        self.num_lines += count


def read_curves(
    path: Path,
    points: int,
    *,
    tokens_per_step: int | None,
    eval_interval: int | None,
    from_step: int | None = None,
    to_step: int | None = None,
    stops: Sequence[Record] = (),
) -> Curves:
    """The curves of the log at `path`, of at most `points` each, for the steps from `from_step` to `to_step`.

    A missing file gives curves without points. `eval_interval` tells where a large file has evaluations; `stops` are
    further evaluations, which are not in the log.
    """
    with StepLog.open(path) as log:
        if log is None:
            return _curves(Lines(), points, tokens_per_step, 0.0, Place(0, 0))
        start = 0 if from_step is None else log.find(from_step)
        stop = log.end if to_step is None else log.find(to_step + 1)
        before = _seconds(_read(log, 0, start, 256, None), tokens_per_step)[-1:] if start else np.zeros(0)
        lines = _read(log, start, stop, points, eval_interval)
        base = float(before[0]) if len(before) else 0.0
        first, last = from_step or 0, math.inf if to_step is None else to_step
        lines.evaluation.insert([stop for stop in stops if first <= stop["step"] <= last])
        return _curves(lines, points, tokens_per_step, base, log.place(stop))


def read_news(
    path: Path,
    cursor: Cursor,
    points: int,
    *,
    tokens_per_step: int | None,
    eval_interval: int | None,
    end: Place | None = None,
) -> Curves | None:
    """The curves of the lines after `cursor`, up to `end` if it is given.

    None if the file was rewritten since, as by a resumed run.
    """
    with StepLog.open(path) as log:
        if log is None:
            return None if cursor.place.offset else _curves(Lines(), points, tokens_per_step, 0.0, Place(0, 0))
        if not log.has(cursor.place):
            return None
        stop = log.end if end is None else min(end.offset, log.end)
        lines = _read(log, cursor.place.offset, stop, points, eval_interval)
        return _curves(lines, points, tokens_per_step, cursor.seconds, log.place(max(stop, cursor.place.offset)))


def choose(values: Floats, points: int) -> npt.NDArray[np.int64]:
    """The indexes, ascending, of at most `points` >= 2 of `values` (N,): all, or the extremes of each interval.

    The first and the last value are kept. Values that are NaN are chosen only where an interval has no other.
    """
    if len(values) <= points:
        return np.arange(len(values))
    num_intervals = max((points - 2) // 2, 0)
    edges = np.linspace(1, len(values) - 1, num_intervals + 1).astype(np.int64)
    kept = {0, len(values) - 1}
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = values[first:last]
        if len(part) and not np.isnan(part).all():
            kept |= {first + int(np.nanargmin(part)), first + int(np.nanargmax(part))}
        elif len(part):
            kept.add(first)
    return np.array(sorted(kept), np.int64)


def _read(log: StepLog, start: int, stop: int, points: int, eval_interval: int | None) -> Lines:
    lines = Lines()
    if stop - start <= EXACT_BYTES:
        lines.add(log.lines(start, stop))
        return lines
    num_windows = min(max(points // 2, 2), SAMPLED_BYTES // LEAST_WINDOW_BYTES)
    num_bytes = SAMPLED_BYTES // num_windows
    places: list[tuple[int, int]] = []
    num_read = num_lines = 0
    for number in range(num_windows):
        offset = start + (stop - start - num_bytes) * number // (num_windows - 1)
        found = [each for each in log.window(offset, num_bytes) if each[0] < stop]
        lines.add(found)
        if found:
            places.append((found[0][0], found[0][1]["step"]))
            num_read += found[-1][0] - found[0][0]
            num_lines += len(found) - 1
    lines.num_lines = round(num_lines / num_read * (stop - start)) if num_read else 0
    if eval_interval and places:
        lines.evaluation = _find_evaluations(log, places, stop, points, eval_interval)
    return lines


def _find_evaluations(
    log: StepLog, places: Sequence[tuple[int, int]], stop: int, points: int, eval_interval: int
) -> Columns:
    """At most `points` evaluations, evenly spaced. `places` are positions of lines with their steps, ascending."""
    found = Columns(EVALUATION)
    offsets, steps = [offset for offset, _ in places], np.array([step for _, step in places])
    last = next((record["step"] for _, record in reversed(log.window(max(0, stop - 2**16), 2**16))), int(steps[-1]))
    first = -(-int(steps[0]) // eval_interval)
    count = last // eval_interval - first + 1
    if count < 1:
        return found
    numbers = np.unique(np.linspace(first, first + count - 1, min(count, points)).astype(np.int64))
    targets = dict.fromkeys([*(numbers * eval_interval).tolist(), last])
    for step in targets:
        place = int(np.searchsorted(steps, step, side="left"))
        low = offsets[place - 1] if place else offsets[0]
        offset = log.find(step, low, offsets[place] if place < len(offsets) else stop)
        for _, record in log.window(offset, EVALUATION_BYTES, mark=b'"validation_loss"'):
            if record["step"] == step:
                found.add(record)
                break
    return found


def _curves(lines: Lines, points: int, tokens_per_step: int | None, base: float, end: Place) -> Curves:
    seconds = base + _seconds(lines, tokens_per_step)
    steps = np.array(lines.evaluation.steps, np.float64)
    if len(seconds):
        evaluated = np.interp(steps, np.array(lines.training.steps, np.float64), seconds)
    else:
        evaluated = np.full(len(steps), base)
    return Curves(
        lines.training.thinned(points, "loss", seconds, tokens_per_step),
        lines.evaluation.thinned(points, "validation_loss", evaluated, tokens_per_step),
        lines.num_lines,
        Cursor(end, float(seconds[-1]) if len(seconds) else base),
        lines.skips,
    )


def _seconds(lines: Lines, tokens_per_step: int | None) -> Floats:
    """The time of training up to each update (N,), in seconds, from the tokens per second; evaluations do not count.

    For lines that were left out, the mean time of the updates around them counts.
    """
    steps = np.array(lines.training.steps, np.float64)
    rates = np.array(lines.training.values["tokens_per_second"])
    if not len(steps) or tokens_per_step is None:
        return np.zeros(len(steps))
    with np.errstate(all="ignore"):
        each = tokens_per_step / rates
    each = np.where(np.isfinite(each) & (each > 0), each, 0.0)
    plain = each.copy()
    gaps = sorted(gap for gap in lines.gaps if gap < len(steps))
    for begin, end in zip(gaps, [*gaps[1:], len(steps)], strict=True):
        if begin == 0:
            continue
        passed = max(steps[begin] - steps[begin - 1], 1.0)
        each[begin] += (passed - 1) * plain[max(2 * begin - end, 0) : end].mean()
    return np.cumsum(each)


def _number(value: object) -> float:
    """`value` as a float; NaN for anything but a finite number."""
    if type(value) is float or type(value) is int:
        try:
            number = float(value)
        except OverflowError:
            return math.nan
        return number if math.isfinite(number) else math.nan
    return math.nan


def _with_none(values: Floats) -> list[float | None]:
    """The values as a list, with None for NaN."""
    return [None if value != value else value for value in values.tolist()]
