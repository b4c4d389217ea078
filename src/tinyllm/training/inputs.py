"""Records the inputs of a run in its checkpoints, and compares them on resume.

A difference that changes the mathematics is an error; any other is reported. Nothing is loaded here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tinyllm.config import Config, ModelConfig
from tinyllm.config.layers import RENAMED
from tinyllm.errors import MismatchError
from tinyllm.machine import ranks
from tinyllm.machine.device import pick_device
from tinyllm.shards.format import ShardSet
from tinyllm.shards.order import PHILOX
from tinyllm.version import __version__

HARMLESS = {
    "schedule": "the learning rate follows the new schedule from here on",
    "attention": "sums may round differently from here on",
    "compile": "sums may round differently from here on",
    "evaluation": "losses before and after may come from different windows or steps",
    "ranks": "sums may round differently from here on",
    "parallel": "sums may round differently from here on",
    "device": "results may differ in the last bits from here on",
    "threads": "sums may round differently from here on",
    "torch": "results may differ in the last bits from here on",
    "tinyllm": "results may differ in the last bits from here on",
}
FORMER_VALUES = {"order": PHILOX, "ranks": 1, "parallel": "ddp"}
"""The values of inputs that a checkpoint does not name: of older versions, and of one process."""
SECTIONS = {"batch": "training", "evaluation": "training"}
"""The sections of settings that a checkpoint records under another name."""


def describe_inputs(config: Config, data: Mapping[str, Any], frozen: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that decides the numbers of a run, as JSON values. No setting of `config` may be `auto`.

    `data` are the fingerprints of the objective's inputs, `frozen` the names of parameters that do not train.
    """
    settings = config.training
    return {
        **data,
        **({"frozen": list(frozen)} if frozen else {}),
        "model": config.model.model_dump(),
        "optimizer": config.optimizer.model_dump(),
        "schedule": config.schedule.model_dump(),
        "batch": {
            "batch_size": settings.batch_size,
            "accumulation_steps": settings.accumulation_steps,
            "sequence_length": settings.sequence_length,
            "align_documents": settings.align_documents,
        },
        "seed": settings.seed,
        "dtype": settings.dtype,
        "attention": settings.attention,
        "compile": settings.compile,
        "threads": torch.get_num_threads(),
        "evaluation": {"eval_interval": settings.eval_interval, "eval_batches": settings.eval_batches},
        "device": pick_device(settings.device).type if ranks.num_ranks() > 1 else str(pick_device(settings.device)),
        **({"ranks": ranks.num_ranks()} if ranks.num_ranks() > 1 else {}),
        **({"parallel": "fsdp"} if ranks.num_ranks() > 1 and settings.parallel == "fsdp" else {}),
        "torch": str(torch.__version__),
        "tinyllm": __version__,
    }


def fingerprint_shards(shards: ShardSet) -> str:
    """Identifies shards by sources, tokenizer and options; bare `.bin` files by their sizes in bytes."""
    if shards.details is not None:
        return shards.details.recipe_fingerprint
    sizes = [array.nbytes for split in (shards.train, shards.validation) for array in split]
    return f"bare files of {', '.join(map(str, sizes))} bytes"


def compare_inputs(saved: dict[str, Any], current: dict[str, Any], checkpoint: Path) -> list[str]:
    """One line for each harmless difference. Raises MismatchError for a difference that changes the mathematics."""
    notes = []
    for name in sorted(set(saved) | set(current)):
        former = FORMER_VALUES.get(name)
        before, after = _with_new_names(name, saved.get(name, former)), current.get(name, former)
        if before == after:
            continue
        difference = _describe_difference(name, before, after)
        if name not in HARMLESS:
            raise MismatchError(
                f"{checkpoint} was made with {difference}",
                hint="restore that setting, or start a new run with another `out`; "
                "without `recipe` and other settings a run keeps its own",
            )
        notes.append(f"changed since the checkpoint: {difference}; {HARMLESS[name]}")
    return notes


def _with_new_names(name: str, value: Any) -> Any:
    """The saved `value` of the input `name` with the fields of this version."""
    if not isinstance(value, dict):
        return value
    section = SECTIONS.get(name, name)
    renamed = {RENAMED.get((section, key), key): each for key, each in value.items()}
    # A checkpoint of an older version lacks the newer fields of the model, which had the values of their defaults.
    return ModelConfig.model_validate(renamed).model_dump() if name == "model" else renamed


def _describe_difference(name: str, before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in before | after if before.get(key) != after.get(key)]
        section = SECTIONS.get(name, name)
        return " and ".join(f"{section}.{key} {before.get(key)}, this run has {after.get(key)}" for key in keys)
    return f"{name} {before}, this run has {after}"
