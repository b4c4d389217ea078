"""The log of the steps that a run stopped at: stops.jsonl, apart from the metrics.

A resumed run logs the same metrics as an uninterrupted one, so metrics.jsonl has no line of a stop. The file exists
only if the run stopped.
"""

from pathlib import Path

from tinyllm import storage

NAME = "stops.jsonl"
EARLY = "early"
"""The reason of a run that `training.patience` ended."""


def read_stops(run: Path) -> list[int]:
    """The steps that the run in `run` stopped at, in their order."""
    path = run / NAME
    records = storage.read_json_lines(path) if path.exists() else []
    return [record["step"] for record in records if isinstance(record.get("step"), int)]


def early_end(run: Path) -> int | None:
    """The step that `training.patience` ended the run at; None unless that is its last stop."""
    path = run / NAME
    last = storage.read_json_lines(path)[-1:] if path.exists() else []
    return next((record["step"] for record in last if record.get("reason") == EARLY), None)


def drop_stops_after(run: Path, step: int) -> None:
    """Removes the stops after `step`, which a run that continues from it repeats; at step 0 all."""
    if (run / NAME).exists():
        storage.JsonLines(run / NAME, keep_through_step=step if step else -1).close()


def add_stop(run: Path, step: int, reason: str) -> None:
    """Adds a stop at `step`, unless it is the last one already. Raises ArtifactError if the disk refuses."""
    if read_stops(run)[-1:] == [step]:
        return
    log = storage.JsonLines(run / NAME)
    try:
        log.append({"step": step, "reason": reason})
        log.sync()
    finally:
        log.close()
