"""Describes a run from its files alone: state, progress, settings and marks. Takes no lock, changes nothing.

A run on another machine is known by its folder, which grows while the run goes on.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from tinyllm import storage
from tinyllm.config import ModelConfig
from tinyllm.config.layers import read_toml
from tinyllm.errors import TinyllmError
from tinyllm.model import size
from tinyllm.serving.studio.library import RUN_CONFIG, RUN_LOG, Item
from tinyllm.serving.studio.step_log import Record, StepLog

State = Literal["running", "stopped", "finished"]
SAMPLES_NAME, STOPS_NAME = "samples.jsonl", "stops.jsonl"
QUIET_SECONDS, QUIET_STEPS = 60.0, 5
"""A run of another machine goes on if its log changed within this time, or within the time of these updates."""
TAIL_BYTES = 2**17
"""Bytes at the end of the log from which the progress is read."""
CONFIG_LIMIT_BYTES = 2**20
MOST_MARKS = 1_000
STOP_BYTES = 300
"""Bytes of a line of stops.jsonl, which may have an evaluation."""
MOST_SAVES = 200
RESUMED, EARLY = "resumed", "early"
"""Reasons in stops.jsonl: of a run that went on, and of one whose loss stopped falling."""


@dataclass(frozen=True)
class Settings:
    """The settings of a run."""

    sections: dict[str, Any]
    """All of config.toml; empty if there is none."""
    problem: str | None = None
    """The reason why config.toml cannot be read."""

    @classmethod
    def read(cls, run: Path) -> "Settings":
        """The settings of the run in the folder `run`."""
        path = run / RUN_CONFIG
        try:
            if path.stat().st_size > CONFIG_LIMIT_BYTES:
                return cls({}, f"{RUN_CONFIG} has more than {CONFIG_LIMIT_BYTES:,} bytes")
            return cls(read_toml(path))
        except FileNotFoundError:
            return cls({})
        except (TinyllmError, OSError, RecursionError) as error:
            return cls({}, str(error))

    def number(self, section: str, key: str) -> int | None:
        """A positive whole number among the settings; None for any other value."""
        table = self.sections.get(section)
        value = table.get(key) if isinstance(table, dict) else None
        return value if type(value) is int and 0 < value < 2**53 else None

    @property
    def num_steps(self) -> int | None:
        """Planned updates."""
        return self.number("schedule", "num_steps")

    @property
    def eval_interval(self) -> int | None:
        """Updates between two evaluations."""
        return self.number("training", "eval_interval")

    @property
    def tokens_per_step(self) -> int | None:
        """Tokens that one update predicts."""
        factors = [self.number("training", key) for key in ("batch_size", "accumulation_steps", "sequence_length")]
        product = 1
        for factor in factors:
            if factor is None:
                return None
            product *= factor
        return product if product < 2**53 else None

    def num_parameters(self) -> int | None:
        """Parameters of the model; None if the settings describe none."""
        try:
            return size.num_parameters(ModelConfig.model_validate(self.sections.get("model")))
        except (ValidationError, TinyllmError):
            return None


@dataclass(frozen=True)
class Progress:
    """The place that a run has reached, from the last lines of its log."""

    step: int
    seconds_per_step: float | None
    """Median of the last updates; None without tokens per second."""
    best_validation_loss: float | None
    """Loss of the saved model, else the lowest of the last lines."""
    is_finite: bool
    """Whether the last loss is a number."""
    updated: float
    """The time of the last line, in seconds since 1970."""


def read_progress(run: Path, settings: Settings) -> Progress:
    """The progress of the run in the folder `run`."""
    with StepLog.open(run / RUN_LOG) as log:
        lines = [] if log is None else [record for _, record in log.window(max(0, log.end - TAIL_BYTES), TAIL_BYTES)]
    step = max((record["step"] for record in lines), default=0)
    rates = [rate for record in lines[-100:] if (rate := _positive(record.get("tokens_per_second"))) is not None]
    tokens = settings.tokens_per_step
    seconds = tokens / statistics.median(rates) if rates and tokens is not None else None
    losses = [loss for record in lines if (loss := _positive(record.get("validation_loss"))) is not None]
    best = _positive(saved_model(run).get("validation_loss")) or min(losses, default=None)
    last = next((record["loss"] for record in reversed(lines) if "loss" in record), 0.0)
    is_finite = type(last) in (int, float) and math.isfinite(last)
    return Progress(step, seconds, best, is_finite, _time(run / RUN_LOG) or _time(run))


def state_of(run: Path, settings: Settings, progress: Progress) -> State:
    """Whether the run goes on: its lock is held on this machine, or its log changed a short time ago."""
    if storage.seems_locked(run / storage.LOCK_NAME):
        return "running"
    if settings.num_steps is not None and progress.step >= settings.num_steps:
        return "finished"
    stops = [stop for stop in read_stops(run) if stop.get("reason") != RESUMED]
    if stops and stops[-1]["step"] >= progress.step:
        return "finished" if stops[-1].get("reason") == EARLY else "stopped"
    quiet = max(QUIET_SECONDS, QUIET_STEPS * (progress.seconds_per_step or 0.0))
    is_fresh = progress.step > 0 and time.time() - progress.updated < quiet
    return "running" if is_fresh else "stopped"


def summarize(item: Item) -> dict[str, Any]:
    """The object of a run in the list of all."""
    settings = Settings.read(item.path)
    progress = read_progress(item.path, settings)
    return {
        "id": item.id,
        "name": item.name,
        "state": state_of(item.path, settings, progress),
        "step": progress.step,
        "num_steps": settings.num_steps,
        "best_validation_loss": progress.best_validation_loss,
        "is_finite": progress.is_finite,
        "updated": progress.updated,
    }


def describe(item: Item, skips: Sequence[int]) -> dict[str, Any]:
    """The object of one run with the steps of its skipped updates."""
    settings = Settings.read(item.path)
    progress = read_progress(item.path, settings)
    state = state_of(item.path, settings, progress)
    details = saved_model(item.path)
    left = None
    if state == "running" and settings.num_steps is not None and progress.seconds_per_step is not None:
        left = max(settings.num_steps - progress.step, 0) * progress.seconds_per_step
    parameters = details.get("num_parameters")
    return {
        "id": item.id,
        "name": item.name,
        "state": state,
        "step": progress.step,
        "num_steps": settings.num_steps,
        "tokens_per_step": settings.tokens_per_step,
        "config": {name: table for name, table in settings.sections.items() if isinstance(table, dict)},
        "marks": _marks(item.path, details, skips),
        "seconds_left": left,
        "has_samples": _has_samples(item.path),
        "parameters": parameters if type(parameters) is int else settings.num_parameters(),
        "best_validation_loss": progress.best_validation_loss,
        "updated": progress.updated,
        "problem": settings.problem,
    }


def _has_samples(run: Path) -> bool:
    with StepLog.open(run / SAMPLES_NAME) as log:
        return log is not None and log.end > 0


def read_stops(run: Path) -> list[Record]:
    """The lines of stops.jsonl, at most the first `MOST_MARKS`."""
    with StepLog.open(run / STOPS_NAME) as log:
        if log is None:
            return []
        return [record for _, record in log.window(0, MOST_MARKS * STOP_BYTES)][:MOST_MARKS]


def saved_model(run: Path) -> dict[str, Any]:
    """The details in the manifest of the run's model; empty if it has none, or if it is replaced at this moment."""
    try:
        return storage.read_manifest_text(run / "model").details
    except (TinyllmError, OSError):
        return {}


def _marks(run: Path, details: dict[str, Any], skips: Sequence[int]) -> list[dict[str, Any]]:
    """Stops, resumes, skipped updates and saved checkpoints, in the order of steps."""
    marks: list[dict[str, Any]] = []
    for stop in read_stops(run):
        reason = stop.get("reason")
        kind = "resume" if reason == RESUMED else "stop"
        marks.append({"step": stop["step"], "kind": kind, "text": reason if isinstance(reason, str) else ""})
    marks += [{"step": step, "kind": "skip", "text": "skipped: loss or gradient not finite"} for step in skips]
    marks += [{"step": step, "kind": "save", "text": "checkpoint"} for step in _checkpoints(run)]
    if type(details.get("step")) is int:
        marks.append({"step": details["step"], "kind": "save", "text": "model"})
    return sorted(marks, key=lambda mark: mark["step"])[:MOST_MARKS]


def _checkpoints(run: Path) -> list[int]:
    """The steps of the checkpoints that the run has kept, at most the first `MOST_SAVES`."""
    try:
        names = [path.name for path in (run / "checkpoints").iterdir()]
    except OSError:
        return []
    numbers = [name.removeprefix("step-") for name in names if name.startswith("step-")]
    return sorted(int(number) for number in numbers if number.isascii() and number.isdecimal() and len(number) < 16)[
        :MOST_SAVES
    ]


def _positive(value: object) -> float | None:
    """`value` if it is a positive, finite number."""
    return float(value) if type(value) in (int, float) and 0 < value < 1e300 else None  # type: ignore[operator,arg-type]


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
