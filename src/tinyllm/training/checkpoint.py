"""Checkpoints: everything that a resumed run needs to give the same numbers as an uninterrupted one.

One directory a step, committed by `storage`: weights, optimizer moments, and `state.json`. Batches, learning rate and
dropout are functions of the step, so the state is little more than the step itself.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from tinyllm import storage
from tinyllm.errors import ArtifactError, FormatError, MismatchError, TinyllmError
from tinyllm.machine import ranks
from tinyllm.model.materialize import as_tensor
from tinyllm.safetensors_file import SafetensorsFile
from tinyllm.training.optimizer import load_optimizer_tensors, optimizer_tensors
from tinyllm.training.sharding import Gathering, is_sharded, local, slice_like
from tinyllm.training.step import Updater

KIND = "checkpoint"
_NAME = re.compile(r"step-\d{8,}")
WEIGHTS, MOMENTS, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


class TrainingState(BaseModel):
    """The state of a run beside its weights and its optimizer."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    """Number of optimizer updates done."""
    evaluated_step: int = -1
    """Step of the last complete evaluation; -1 before the first."""
    best_loss: float | None = None
    """Lowest validation loss, in nats per token: the loss of RUN/model."""
    lowest_loss: float | None = None
    """Lowest validation loss of the evaluations at each interval; unlike `best_loss`, it leaves out those of stops."""
    worse_evaluations: int = 0
    """Evaluations at the interval since `lowest_loss`."""
    bad_steps: int = 0
    """Number of updates skipped in a row."""
    total_bad_steps: int = 0
    """Number of updates skipped in total."""
    seconds: float = 0.0
    """Time spent on updates, over all sessions of the run."""
    scaler: dict[str, Any] = {}
    """The float16 gradient scaler's state."""
    inputs: dict[str, Any] = {}
    """Shapes, batch, shards and tokenizer of the run (see `describe_inputs`); compared on resume."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path of the checkpoint of `step`; names sort by step."""
    return folder / f"step-{step:08d}"


def save_checkpoint(folder: Path, state: TrainingState, model: nn.Module, updater: Updater, keep: int) -> Path:
    """Commits the checkpoint of `state.step`, then removes all but the `keep` newest. Returns its path.

    Every rank calls it, and the first one writes. Raises ArtifactError, and saves nothing, if a weight or a moment is
    not finite.
    """
    weights = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    moments = optimizer_tensors(model, updater.optimizers)
    check_finite({**weights, **moments}, state.step)
    state.scaler = updater.scaler.state_dict() if updater.scaler.is_enabled() else {}
    path = checkpoint_path(folder, state.step)
    gathering = Gathering(weights, moments) if is_sharded(model) else None

    def write() -> None:
        with storage.commit_directory(path, KIND, needed_bytes=num_bytes(weights) + num_bytes(moments)) as draft:
            for name, tensors in ((WEIGHTS, weights), (MOMENTS, moments)):
                draft.write(name, gathering.stream(tensors) if gathering else partial(save_file, tensors))
            draft.write(STATE, state.model_dump_json(indent=2))
            draft.details = {"step": state.step, "torch_version": torch.__version__}
        for old in list_checkpoints(folder)[keep:]:
            if is_checkpoint_of(old):
                storage.remove_directory(old, KIND)

    def write_with_all() -> None:
        try:
            write()
        except Exception:
            if gathering:
                gathering.finish()
            raise

    if gathering and not ranks.is_first():
        gathering.finish()
    ranks.once(write_with_all)
    return path


def check_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Raises ArtifactError naming the first tensor with a number that is not finite; called before each save.

    Every rank calls it, and raises the same error if its own slice of a sharded tensor is finite.
    """
    unfinite = (name for name, tensor in tensors.items() if not torch.isfinite(local(tensor)).all())
    name = next(filter(None, ranks.gather(next(unfinite, ""))), "")
    if name:
        raise ArtifactError(
            f"{name} holds a number that is not finite at step {step}; nothing was saved, "
            "and earlier checkpoints are whole",
            hint="lower schedule.peak, and go on with `resume=True`",
        )


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of `tensors` on disk, without the file's header of a few kilobytes."""
    return sum(tensor.nbytes for tensor in tensors.values())


def load_checkpoint(path: Path, model: nn.Module, updater: Updater) -> TrainingState:
    """Copies a verified checkpoint's weights and moments into `model` and `updater`; returns its state.

    Raises ArtifactError if a file cannot be read, MismatchError if it belongs to another model.
    """
    state = read_state(path)
    try:
        weights, moments = StoredTensors(path / WEIGHTS), StoredTensors(path / MOMENTS)
        _load_weights(path / WEIGHTS, weights, model)
        updater.sync_shadow()
        _load_moments(path / MOMENTS, moments, model, updater)
    except FormatError as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if state.scaler:
        updater.scaler.load_state_dict(state.scaler)
    return state


def _load_weights(path: Path, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    parameters = dict(model.named_parameters())
    for name in sorted(parameters.keys() | weights.keys()):
        # The names first: reading a tensor takes time.
        if name not in parameters or name not in weights:
            raise MismatchError(f"{path} belongs to another model; the first tensor that differs is {name}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            weight = weights[name]
            if weight.shape != parameter.shape:
                raise MismatchError(f"{path} belongs to another model; the first tensor that differs is {name}")
            parameter.copy_(slice_like(weight, parameter))


def _load_moments(path: Path, moments: Mapping[str, Tensor], model: nn.Module, updater: Updater) -> None:
    try:
        load_optimizer_tensors(model, updater.optimizers, moments)
    except MismatchError as error:
        raise MismatchError(f"{path}: {error}") from None


class StoredTensors(Mapping[str, Tensor]):
    """The float32 tensors of a file by name, each read when it is asked for. Raises FormatError if it is damaged."""

    def __init__(self, path: Path) -> None:
        self.file = SafetensorsFile(path)

    def __getitem__(self, name: str) -> Tensor:
        return as_tensor(self.file[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.file)

    def __len__(self) -> int:
        return len(self.file)


def read_state(path: Path) -> TrainingState:
    """The state of a checkpoint. Raises ArtifactError naming the problem if `state.json` cannot be read."""
    try:
        return TrainingState.model_validate(json.loads((path / STATE).read_text(encoding="utf-8")))
    except (ValidationError, ValueError, OSError) as error:
        raise ArtifactError(f"{path / STATE} cannot be read: {str(error).splitlines()[0]}") from None


def list_checkpoints(folder: Path) -> list[Path]:
    """The directories named `step-` and digits in `folder`, newest first."""
    return sorted((p for p in folder.glob("step-*") if _NAME.fullmatch(p.name) and p.is_dir()), reverse=True)


def is_checkpoint_of(path: Path) -> bool:
    """Whether `path` was committed under its own name; False for a renamed copy of a checkpoint."""
    try:
        return storage.read_manifest(path, KIND).details.get("step") == int(path.name.removeprefix("step-"))
    except TinyllmError:
        return False


def newest_whole_checkpoint(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint that verifies, or None, and one line for each newer one that does not."""
    complaints: dict[Path, str] = {}
    for path in list_checkpoints(folder):
        try:
            storage.verify(path, KIND)
            read_state(path)
        except TinyllmError as error:
            complaints[path] = f"{path.name} is passed over: {error}"
            continue
        return path, complaints
    return None, complaints
