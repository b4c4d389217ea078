"""Counts the updates that were skipped because the loss or the gradient was not finite, and ends a diverged run."""

from pathlib import Path

from tinyllm.errors import DivergenceError
from tinyllm.progress import Note
from tinyllm.training.checkpoint import TrainingState, list_checkpoints


def count_bad(state: TrainingState, skipped: bool, limit: int, run: Path, note: Note) -> None:
    """Counts the update to `state.step`. Raises DivergenceError after `limit` skipped updates in a row."""
    state.bad_steps = state.bad_steps + 1 if skipped else 0
    state.total_bad_steps += skipped
    if skipped:
        note(f"step {state.step}: loss or gradient not finite; update skipped, {state.bad_steps} in a row")
    if state.bad_steps >= limit:
        checkpoints = list_checkpoints(run / "checkpoints")
        last = f"the last checkpoint is {checkpoints[0]}" if checkpoints else "there is no checkpoint yet"
        raise DivergenceError(
            f"{limit} updates in a row were not finite, up to step {state.step}; "
            f"lower schedule.peak or check the data; {last}"
        )
