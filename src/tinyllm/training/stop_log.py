"""The log of the steps that a run stopped at and went on from: stops.jsonl, apart from the metrics.

A resumed run logs the same metrics as an uninterrupted one, so metrics.jsonl has no line of a stop. Its
evaluation stands in the line here. The file exists only if the run stopped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyllm import storage

NAME = "stops.jsonl"
EARLY = "early"
"""The reason of a run that `training.patience` ended."""
RESUMED = "resumed"
"""The reason of a line that says where a run went on; a killed process wrote no line of its stop."""


def read_stops(run: Path) -> list[int]:
    """The steps that the run in `run` stopped at, in their order, each once."""
    path = run / NAME
    records = storage.read_json_lines(path) if path.exists() else []
    return list(dict.fromkeys(record["step"] for record in records if isinstance(record.get("step"), int)))


def early_end(run: Path) -> int | None:
    """The step that `training.patience` ended the run at; None unless that is its last stop."""
    path = run / NAME
    last = storage.read_json_lines(path)[-1:] if path.exists() else []
    return next((record["step"] for record in last if record.get("reason") == EARLY), None)


def drop_stops_after(run: Path, step: int) -> None:
    """Removes the stops after `step`, which a run that continues from it repeats; at step 0 all."""
    if (run / NAME).exists():
        storage.JsonLines(run / NAME, keep_through_step=step if step else -1).close()


def add_stop(run: Path, step: int, reason: str, measured: Mapping[str, Any] | None = None) -> None:
    """Adds a line of `step` and `reason`, unless it is the last one already. Raises ArtifactError if the disk refuses.

    `measured` is the evaluation of the step, unless metrics.jsonl has it.
    """
    path = run / NAME
    last = storage.read_json_lines(path)[-1:] if path.exists() else []
    if any((record.get("step"), record.get("reason")) == (step, reason) for record in last):
        return
    log = storage.JsonLines(path)
    try:
        log.append({"step": step, "reason": reason, **(measured or {})})
        log.sync()
    finally:
        log.close()
