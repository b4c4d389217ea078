"""The samples of a run from its samples.jsonl, which training writes at each evaluation. Bounded as `step_log` is."""

from pathlib import Path
from typing import Any

from tinyllm.serving.studio.curves import EVALUATION_BYTES, EXACT_BYTES, SAMPLED_BYTES
from tinyllm.serving.studio.library import RUN_LOG
from tinyllm.serving.studio.runs import SAMPLES_NAME
from tinyllm.serving.studio.step_log import Place, Record, StepLog

MOST_STEPS = 2_000
MOST_CHARACTERS = 20_000
"""Characters of one text that are sent."""
NUM_WINDOWS = 1_000
PAGE_BYTES = 2**22
"""Bytes in which the samples of one answer stand."""


def read_samples(run: Path, from_step: int | None, limit: int, *, with_steps: bool = True) -> dict[str, Any]:
    """All steps that have samples, at most `MOST_STEPS`, and `limit` samples from `from_step` on; None = the last.

    Without `with_steps` there are no steps, and the answer takes the same time for any number of samples.
    """
    with StepLog.open(run / SAMPLES_NAME) as log:
        if log is None:
            return {"steps": [], "samples": []}
        steps = _thinned(_steps(log)) if with_steps else []
        if from_step is None:
            found = [record for _, record in log.window(max(0, log.end - PAGE_BYTES), PAGE_BYTES)][-limit:]
        else:
            found = [record for _, record in log.window(log.find(from_step), PAGE_BYTES)][:limit]
    return {"steps": steps, "samples": with_losses(run, found)}


def read_new_samples(run: Path, place: Place, limit: int) -> tuple[list[dict[str, Any]], Place]:
    """At most the last `limit` samples after `place`, and the place after them; none if the file was rewritten."""
    with StepLog.open(run / SAMPLES_NAME) as log:
        if log is None:
            return [], Place(0, 0)
        end = log.place(log.end)
        if not log.has(place):
            return [], end
        first = max(place.offset, log.end - PAGE_BYTES)
        found = [record for _, record in log.window(first, log.end - first)][-limit:]
    return (with_losses(run, found) if found else []), end


def end_of_samples(run: Path) -> Place:
    """The place after the last sample."""
    with StepLog.open(run / SAMPLES_NAME) as log:
        return Place(0, 0) if log is None else log.place(log.end)


def with_losses(run: Path, records: list[Record]) -> list[dict[str, Any]]:
    """The samples as the page gets them, each with the validation loss of its step if the log has one."""
    with StepLog.open(run / RUN_LOG) as log:
        losses = {step: None if log is None else _loss(log, step) for step in {record["step"] for record in records}}
    return [
        {
            "step": record["step"],
            "prompt": _text(record.get("prompt")),
            "text": _text(record.get("text")),
            "validation_loss": losses[record["step"]],
        }
        for record in records
    ]


def _steps(log: StepLog) -> list[int]:
    """The steps of all samples; of a large file those in evenly spaced windows."""
    if log.end <= EXACT_BYTES:
        return sorted({record["step"] for _, record in log.lines()})
    num_bytes = SAMPLED_BYTES // NUM_WINDOWS
    starts = [(log.end - num_bytes) * number // (NUM_WINDOWS - 1) for number in range(NUM_WINDOWS)]
    return sorted({record["step"] for start in starts for _, record in log.window(start, num_bytes)})


def _thinned(steps: list[int]) -> list[int]:
    """At most `MOST_STEPS` of the steps, evenly spaced, the first and the last among them."""
    if len(steps) <= MOST_STEPS:
        return steps
    return [steps[number * (len(steps) - 1) // (MOST_STEPS - 1)] for number in range(MOST_STEPS)]


def _loss(log: StepLog, step: int) -> float | None:
    """The validation loss of the evaluation at `step`; None without one."""
    for _, record in log.window(log.find(step), EVALUATION_BYTES, mark=b'"validation_loss"'):
        loss = record.get("validation_loss")
        if record["step"] == step and type(loss) is float:
            return loss
    return None


def _text(value: object) -> str:
    return value[:MOST_CHARACTERS] if isinstance(value, str) else ""
