"""The checkpoint that a run goes on from, and the state that it begins with.

Nothing here trains. A resumed run has the numbers of an uninterrupted one, or is refused.
"""

from pathlib import Path

from torch import nn

from tinyllm import storage
from tinyllm.config import Config
from tinyllm.errors import ArtifactError, UsageError
from tinyllm.progress import Note
from tinyllm.training.checkpoint import (
    TrainingState,
    list_checkpoints,
    load_checkpoint,
    newest_whole_checkpoint,
    read_state,
)
from tinyllm.training.inputs import compare_inputs, describe_inputs
from tinyllm.training.objective import Objective
from tinyllm.training.saved_model import ModelDirectory
from tinyllm.training.step import Updater
from tinyllm.training.trainable import frozen_names


def find_checkpoint(folder: Path, resume: bool, note: Note) -> Path | None:
    """The newest whole checkpoint of the run in `folder`; None for a new run. Renames damaged checkpoints.

    Raises UsageError if a new run would overwrite another, ArtifactError if every checkpoint is damaged.
    """
    checkpoints = folder / "checkpoints"
    path, complaints = newest_whole_checkpoint(checkpoints)
    for complaint in complaints.values():
        note(complaint)
    if not resume:
        if list_checkpoints(checkpoints):
            raise UsageError(
                f"{folder} already holds a run",
                hint="go on with `resume=True`, or choose another `out` directory",
            )
        return None
    if path is None:
        if complaints:
            raise ArtifactError(f"no checkpoint in {checkpoints} is whole; see the lines above, and start a new run")
        note(f"no checkpoint in {checkpoints}; starting at step 0")
        return None
    for damaged in complaints:
        storage.set_aside(damaged)
    return path


def begin_state(
    checkpoint: Path | None,
    config: Config,
    objective: Objective,
    model: nn.Module,
    updater: Updater,
    directory: ModelDirectory,
    note: Note,
) -> TrainingState:
    """The state that a run begins with: a new one, or that of `checkpoint`, whose weights and moments are loaded.

    Raises MismatchError for a checkpoint of other inputs; `note` gets a line for each difference that is allowed.
    """
    saved_inputs = {} if checkpoint is None else read_state(checkpoint).inputs
    if checkpoint is not None:
        objective.resume_from(saved_inputs)
    inputs = describe_inputs(config, objective.inputs(), frozen_names(model))
    if checkpoint is None:
        return TrainingState(inputs=inputs)
    for change in compare_inputs(saved_inputs, inputs, checkpoint):
        note(change)
    state = load_checkpoint(checkpoint, model, updater)
    state.inputs = inputs
    # A stop may have saved a better model after the checkpoint; without a model any finite loss is the best.
    saved = directory.read()
    if saved is None or not config.training.always_save_checkpoint:
        state.best_loss = None if saved is None else saved.loss
    note(f"going on from {checkpoint}, step {state.step}")
    if state.step >= config.schedule.num_steps:
        note(f"nothing is left to train: schedule.num_steps is {config.schedule.num_steps}")
    return state
