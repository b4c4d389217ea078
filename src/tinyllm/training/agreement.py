"""Checks before a run that its ranks train one model on one order of the data: settings, shards, `parallel`."""

from typing import Any

from tinyllm.config import Config
from tinyllm.errors import MismatchError, UsageError
from tinyllm.machine import ranks

OWN_SETTINGS = ("training.device", "training.num_threads")
"""Settings that a rank may have for itself: they decide where it computes, not what."""


def check_ranks_agree(config: Config, data: str) -> None:
    """Raises MismatchError on every rank, with the same message, for the first setting that differs between ranks.

    `data` is the fingerprint of the shards. Raises UsageError if `training.parallel` refuses several ranks.
    """
    if ranks.num_ranks() == 1:
        return
    first, *others = ranks.gather({**_flatten(config), "shards": data})
    for rank, settings in enumerate(others, start=1):
        for name, value in first.items():
            if settings[name] != value:
                raise MismatchError(
                    f"rank {rank} has {name} {settings[name]}, and rank 0 has {value}; "
                    "start every rank with the same settings"
                )
    if config.training.parallel == "none":
        raise UsageError(
            f"training.parallel is none, and torchrun started {ranks.num_ranks()} ranks",
            hint="use `training.parallel=auto`, or start one process without torchrun",
        )


def _flatten(config: Config) -> dict[str, Any]:
    """`section.key` -> value, without `OWN_SETTINGS`."""
    sections: dict[str, dict[str, Any]] = config.model_dump(mode="json")
    flat = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return {name: value for name, value in flat.items() if name not in OWN_SETTINGS}
