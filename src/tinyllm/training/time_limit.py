"""Fits the number of updates of a run into a training time on this machine. Reads and writes no files."""

import time

from tinyllm.config import Config
from tinyllm.machine.device import pick_device
from tinyllm.progress import SILENT, Note
from tinyllm.training.path import choose_fast_path
from tinyllm.training.trial import measure_update_seconds

MEASURED_PART = 0.05
"""Part of the training time that may go to measuring an update: a busy machine takes long for one."""
NUM_MEASURED = 40


def fit_to_time(config: Config, max_minutes: float, note: Note = SILENT.note) -> Config:
    """`config` with this machine's fast path, and its number of updates reduced to those that fit into the time.

    `note` gets one line for the path, and one if the number of updates is reduced.
    """
    start = time.monotonic()
    path = choose_fast_path(config, pick_device(config.training.device), config.schedule.num_steps, note)
    note(path.reason)
    config = path.resolve(config)
    limit = max_minutes * MEASURED_PART * 60
    seconds = measure_update_seconds(config, num_updates=NUM_MEASURED, limit_seconds=limit)
    left = max_minutes * 60 - (time.monotonic() - start)  # includes compiling
    num_steps = max(1, min(config.schedule.num_steps, int(left / seconds)))
    if num_steps < config.schedule.num_steps:
        note(f"an update takes {seconds:.2f} s here: {num_steps} instead of {config.schedule.num_steps} updates")
    schedule = config.schedule.model_copy(update={"num_steps": num_steps})
    return config.model_copy(update={"schedule": schedule})
