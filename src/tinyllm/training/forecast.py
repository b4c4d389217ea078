"""What a run will need on this machine: memory, disk and time, said before it starts.

Memory and disk are arithmetic on the config; time is a short trial of real updates on random tokens. It writes nothing.
A run that cannot fit into memory is refused here, and an allocation that fails all the same becomes one line.
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
"""What Python, PyTorch and the tokenizer take before there is a model."""
MOMENTS_PER_PARAMETER = 2
LEAST_BYTES_PER_NUMBER = 1
"""Of what blocks keep: numbers have 2 bytes at least, and kernels compute up to half of them again."""


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to need."""

    memory_bytes: int
    """At its peak: weights, gradients, moments and the activations of a microbatch."""
    checkpoint_bytes: int
    """One checkpoint."""
    disk_bytes: int
    """All checkpoints that are kept and one more while it is written, and RUN/model twice while it is replaced."""
    tokens: int
    """Seen by the run in all."""


def forecast(config: Config) -> Forecast:
    """The needs of a run with `config`."""
    settings, weights = config.training, weight_bytes(config.model)
    checkpoint = weights * (1 + MOMENTS_PER_PARAMETER)
    # In 16 bits a rounded copy of the model and its gradients lie beside the float32 ones.
    copies = 2 if settings.dtype == "float32" else 3
    states = weights * (copies + MOMENTS_PER_PARAMETER)
    return Forecast(
        memory_bytes=LIBRARY_BYTES + states + activation_bytes(config),
        checkpoint_bytes=checkpoint,
        disk_bytes=(settings.keep_checkpoints + 1) * checkpoint + 2 * weights,
        tokens=config.schedule.num_steps * tokens_per_step(config),
    )


def activation_bytes(config: Config) -> int:
    """What the backward pass of one microbatch keeps, roughly: each block's inputs to its products, and the logits.

    Logits are kept with their softmax and their gradient.
    """
    settings = config.training
    logits = settings.batch_size * settings.sequence_length * 3 * config.model.vocab_size
    return 4 * (_block_numbers(config) + logits)


def _block_numbers(config: Config) -> int:
    """How many numbers all blocks keep of one microbatch.

    A block keeps about 8 vectors of the residual stream, its queries, keys and values, and 4 of its feed-forward
    (Korthikanti et al. 2022 count the same for GPT).
    """
    model, settings = config.model, config.training
    heads = (model.num_heads + 2 * model.num_kv_heads) * model.head_size
    per_block = 8 * model.hidden_size + 2 * heads + 4 * model.intermediate_size
    return settings.batch_size * settings.sequence_length * model.num_layers * per_block


def check_memory(config: Config, device: "torch.device") -> None:
    """Raises ResourceError, with the bytes, if `config` cannot fit into the memory of `device`.

    The need is a lower bound: weights, gradients and one moment in float32, and the least activations, without logits.
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
    """Tokens that one optimizer update predicts."""
    return config.training.batch_size * config.training.accumulation_steps * config.training.sequence_length


def measure_update_seconds(config: Config, trial_seconds: float) -> float:
    """Seconds an update takes here: real ones on random tokens, for about `trial_seconds`.

    Raises ResourceError if they cannot fit into memory.
    """
    from tinyllm.runtime import pick_device
    from tinyllm.training.fast_path import choose_fast_path
    from tinyllm.training.trial import measure_step_seconds

    check_memory(config, pick_device(config.training.device))
    # Compiling would take longer than the trial; a run that pays for it is faster than what is said here.
    eager = config.model_copy(update={"training": config.training.model_copy(update={"compile": "off"})})
    config = choose_fast_path(eager, pick_device(eager.training.device), num_updates=0).resolve(eager)
    # One microbatch stands for all of an update, so that the trial of a large batch ends in time.
    settings = config.training.model_copy(update={"accumulation_steps": 1})
    short = config.model_copy(update={"training": settings})
    first = measure_step_seconds(short, num_steps=1)
    num_steps = max(1, min(100, int(trial_seconds / max(first, 1e-6)) - 3))
    return measure_step_seconds(short, num_steps) * config.training.accumulation_steps
