"""Memory of a run, by arithmetic on its config; `check_memory` refuses a run that cannot fit."""

from typing import TYPE_CHECKING

from tinyllm.config import Config
from tinyllm.errors import ResourceError
from tinyllm.machine import ranks
from tinyllm.machine.memory import device_memory_bytes
from tinyllm.model.size import weight_bytes

if TYPE_CHECKING:
    import torch

LEAST_BYTES_PER_NUMBER = 1
"""Lower bound for activations: at least 2 bytes each, and custom kernels recompute up to half of them."""


def activation_bytes(config: Config, bytes_per_number: int = 4) -> int:
    """Approximate bytes of one microbatch's activations: the inputs of each block's matrix products, and the logits.

    `bytes_per_number` is of the blocks' numbers. Logits are float32 and count three times: with their softmax and their
    gradient.
    """
    settings = config.training
    logits = settings.batch_size * settings.sequence_length * 3 * config.model.vocab_size
    return bytes_per_number * _block_numbers(config) + 4 * logits


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
    num_slices = ranks.num_ranks() if config.training.parallel == "fsdp" else 1
    states, activations = 3 * weight_bytes(config.model) // num_slices, LEAST_BYTES_PER_NUMBER * _block_numbers(config)
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
