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


CHUNK_BYTES = 2**27
"""Most bytes of a chunk's float32 logits: enough rows to keep a GPU busy, and little beside its memory."""


def chunk_tokens(vocab_size: int) -> int:
    """Number of tokens of a chunk, where `chunked_loss` computes the head's loss in chunks."""
    return max(1, CHUNK_BYTES // (4 * vocab_size))


def activation_bytes(config: Config, bytes_per_number: int = 4, *, in_chunks: bool = False) -> int:
    """Approximate bytes of one microbatch's activations: the inputs of each block's matrix products, and the logits.

    `bytes_per_number` is of the blocks' numbers. Logits are float32 and count three times: with their softmax and their
    gradient. With `in_chunks` those of one chunk exist at a time, and the gradients that the chunks add up are counted.
    """
    settings, model = config.training, config.model
    num_tokens = settings.batch_size * settings.sequence_length
    rows = min(num_tokens, chunk_tokens(model.vocab_size)) if in_chunks else num_tokens
    head = 4 * 3 * rows * model.vocab_size
    if rows < num_tokens:
        head += 4 * model.vocab_size * model.hidden_size + bytes_per_number * num_tokens * model.hidden_size
    return bytes_per_number * _block_numbers(config) + head


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
