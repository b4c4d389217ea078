"""Memory, disk and time that a run needs on this machine, known before it starts. Writes nothing.

Memory and disk are arithmetic on the config; time comes from a short trial of real updates on random tokens.
"""

from dataclasses import dataclass
from pathlib import Path

from tinyllm import storage
from tinyllm.config import Config
from tinyllm.errors import InputError
from tinyllm.model.size import weight_bytes
from tinyllm.shards.format import ShardSet
from tinyllm.training.memory import activation_bytes, check_memory

LIBRARY_BYTES = 450 * 2**20
"""Memory of Python, PyTorch and the tokenizer without a model."""
MOMENTS_PER_PARAMETER = 2


@dataclass(frozen=True)
class Forecast:
    """The expected needs of a run."""

    memory_bytes: int
    """Peak memory: weights, gradients, moments and the activations of one microbatch."""
    checkpoint_bytes: int
    """Disk space of one checkpoint."""
    disk_bytes: int
    """Disk space of keep_checkpoints + 1 checkpoints and two copies of RUN/model: a new one is written before an old
    one is removed."""
    tokens: int
    """Number of tokens that the run trains on."""


def forecast(config: Config) -> Forecast:
    """The needs of a run with `config`."""
    settings, weights = config.training, weight_bytes(config.model)
    checkpoint = weights * (1 + MOMENTS_PER_PARAMETER)
    # 16-bit training adds a 16-bit copy of the weights and their gradients to the float32 ones.
    copies = 2 if settings.dtype == "float32" else 3
    states = weights * (copies + MOMENTS_PER_PARAMETER)
    return Forecast(
        memory_bytes=LIBRARY_BYTES + states + activation_bytes(config),
        checkpoint_bytes=checkpoint,
        disk_bytes=(settings.keep_checkpoints + 1) * checkpoint + 2 * weights,
        tokens=config.schedule.num_steps * config.tokens_per_step,
    )


def check_windows(config: Config, shards: ShardSet) -> None:
    """Raises InputError if no training shard has the `sequence_length + 1` tokens of one window."""
    longest = int(shards.train.lengths.max(initial=0))
    if longest <= config.training.sequence_length:
        raise InputError(
            f"{shards.path}: the longest training shard has {longest} tokens, but a window of this recipe needs "
            f"{config.training.sequence_length + 1}; give more text or a smaller training.sequence_length"
        )


def check_fits(need: Forecast, out: Path, available_bytes: int | None) -> None:
    """Raises InputError if the memory, `available_bytes`, is too small; ArtifactError if the disk of `out` is.

    None for `available_bytes` means unknown, and passes.
    """
    if available_bytes and need.memory_bytes > available_bytes:
        raise InputError("the memory is probably too small; use a smaller training.batch_size or model")
    storage.check_room(out / "checkpoints", need.disk_bytes)


def forecast_update_seconds(config: Config, trial_seconds: float) -> float:
    """Seconds of one update on this machine, from real updates on random tokens for about `trial_seconds`.

    Raises ResourceError if they cannot fit into memory.
    """
    from tinyllm.machine.device import pick_device
    from tinyllm.training.path import choose_fast_path
    from tinyllm.training.trial import measure_update_seconds

    check_memory(config, pick_device(config.training.device))
    # Compiling would take longer than the trial, so a run that compiles is faster than this estimate.
    eager = config.model_copy(update={"training": config.training.model_copy(update={"compile": "off"})})
    config = choose_fast_path(eager, pick_device(eager.training.device), num_updates=0).resolve(eager)
    # One microbatch, multiplied afterwards, so that the trial of a large batch ends in time.
    settings = config.training.model_copy(update={"accumulation_steps": 1})
    short = config.model_copy(update={"training": settings})
    first = measure_update_seconds(short, num_updates=1)
    num_updates = max(1, min(100, int(trial_seconds / max(first, 1e-6)) - 3))
    return measure_update_seconds(short, num_updates=num_updates) * config.training.accumulation_steps
