"""Memory, disk and time that a run needs on this machine, known before it starts. Writes nothing.

Memory and disk are arithmetic on the config; time comes from a short trial of real updates on random tokens.
`check_memory` refuses a run that cannot fit into memory.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyllm.config import Config
from tinyllm.errors import ResourceError
from tinyllm.machine.memory import device_memory_bytes
from tinyllm.model.size import weight_bytes

if TYPE_CHECKING:
    import torch

LIBRARY_BYTES = 450 * 2**20
"""Memory of Python, PyTorch and the tokenizer without a model."""
MOMENTS_PER_PARAMETER = 2
LEAST_BYTES_PER_NUMBER = 1
"""Lower bound for activations: at least 2 bytes each, and custom kernels recompute up to half of them."""


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
        tokens=config.schedule.num_steps * tokens_per_step(config),
    )


def activation_bytes(config: Config) -> int:
    """Approximate bytes of one microbatch's activations: the inputs of each block's matrix products, and the logits.

    Logits count three times: with their softmax and their gradient.
    """
    settings = config.training
    logits = settings.batch_size * settings.sequence_length * 3 * config.model.vocab_size
    return 4 * (_block_numbers(config) + logits)


def _block_numbers(config: Config) -> int:
    """Number of activations that all blocks store for one microbatch.

    Per token and block: 8 x hidden + 2 x (queries, keys, values) + 4 x feed-forward, as Korthikanti et al. (2022)
    count for GPT.
    """
    model, settings = config.model, config.training
    heads = (model.num_heads + 2 * model.num_kv_heads) * model.head_size
    per_block = 8 * model.hidden_size + 2 * heads + 4 * model.intermediate_size
    return settings.batch_size * settings.sequence_length * model.num_layers * per_block


def check_memory(config: Config, device: "torch.device") -> None:
    """Raises ResourceError with the bytes needed and available if `config` cannot fit into the memory of `device`.

    The bytes needed are a lower bound: weights, gradients and one moment in float32, and activations without logits.
    A run that passes may still be too large.
    """
    limit = device_memory_bytes(device)
    states, activations = 3 * weight_bytes(config.model), LEAST_BYTES_PER_NUMBER * _block_numbers(config)
    if limit is None or states + activations <= limit:
        return
    part, cause, remedy = states, "weights, gradients and moments", "a smaller model.hidden_size or model.num_layers"
    if states <= limit:
        part, cause = activations, "activations of one microbatch"
        remedy = "a smaller training.batch_size or training.sequence_length"
    raise ResourceError(
        f"this run needs at least {states + activations:,} bytes of memory, {part:,} of them for {cause}; "
        f"{device} has {limit:,} left; use {remedy}"
    )


def tokens_per_step(config: Config) -> int:
    """Number of tokens that one optimizer update predicts."""
    return config.training.batch_size * config.training.accumulation_steps * config.training.sequence_length


def measure_update_seconds(config: Config, trial_seconds: float) -> float:
    """Seconds of one update on this machine, from real updates on random tokens for about `trial_seconds`.

    Raises ResourceError if they cannot fit into memory.
    """
    from tinyllm.runtime import pick_device
    from tinyllm.training.fast_path import choose_fast_path
    from tinyllm.training.trial import measure_step_seconds

    check_memory(config, pick_device(config.training.device))
    # Compiling would take longer than the trial, so a run that compiles is faster than this estimate.
    eager = config.model_copy(update={"training": config.training.model_copy(update={"compile": "off"})})
    config = choose_fast_path(eager, pick_device(eager.training.device), num_updates=0).resolve(eager)
    # One microbatch, multiplied afterwards, so that the trial of a large batch ends in time.
    settings = config.training.model_copy(update={"accumulation_steps": 1})
    short = config.model_copy(update={"training": settings})
    first = measure_step_seconds(short, num_steps=1)
    num_steps = max(1, min(100, int(trial_seconds / max(first, 1e-6)) - 3))
    return measure_step_seconds(short, num_steps) * config.training.accumulation_steps
