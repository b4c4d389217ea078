"""`train.py --init_from=resume`: the run's own settings, with the constants that a person names over them."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from tinyllm.config import Config
from tinyllm.config.layers import build_run_config
from tinyllm.course.words import CONSTANTS

DERIVED = {
    "schedule.floor": {"learning_rate", "decay_lr"},
    "schedule.warmup_steps": {"warmup_iters", "decay_lr"},
    "training.checkpoint_interval": {"eval_interval"},
}
"""Settings that follow from several constants, or from one that has a setting of its own too."""
NOT_RESUMED = ("model.vocab_size", "training.init_from")


def changed_constants(constants: Mapping[str, Any], defaults: Mapping[str, Any]) -> set[str]:
    """The constants that a person set to another value than the tutorial's."""
    return {name for name, value in constants.items() if value is not None and value != defaults.get(name, value)}


def resumed_config(run: Path, config: Config, changed: Set[str]) -> Config:
    """The config of the run in `run`, with the settings of `config` that come from `changed` constants over it.

    A run without a config.toml has `config` alone. Raises ConfigError if config.toml cannot be read.
    """
    if not (run / "config.toml").exists():
        return config
    values = config.model_dump()
    layer: dict[str, dict[str, Any]] = {}
    for key, names in [*((key, {name}) for key, name in CONSTANTS.items()), *DERIVED.items()]:
        section, _, setting = key.partition(".")
        if names & changed and key not in NOT_RESUMED:
            layer.setdefault(section, {})[setting] = values[section][setting]
    return build_run_config(config.model.vocab_size, run, [("train.py", layer)], resume=True)[0]


def constants_of(config: Config) -> dict[str, Any]:
    """The tutorial's constants that describe `config`; vocab_size and init_from belong to the command."""
    values = config.model_dump()
    kept = {key: name for key, name in CONSTANTS.items() if key not in NOT_RESUMED}
    return {name: values[key.partition(".")[0]][key.partition(".")[2]] for key, name in kept.items()}
