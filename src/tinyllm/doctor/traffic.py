"""Bytes that a rank sends in an update, with whole models (DDP) and with slices (FSDP2).

The exchanges are rings: a rank passes parts on to its neighbour. With n ranks and a tensor of S bytes a rank sends

    all-gather, reduce-scatter    (n - 1) / n x S
    all-reduce                    2 (n - 1) / n x S, a reduce-scatter and an all-gather

(Patarasuk & Yuan 2009, Bandwidth optimal all-reduce algorithms). No exchange of n ranks with equal parts sends less.
"""

from tinyllm.config import Config
from tinyllm.model.size import block_parameters, num_parameters

GRADIENT_BYTES = 4
"""Gradients are summed in float32, whatever the passes compute in."""


def pass_bytes(config: Config) -> int:
    """Bytes of a weight in the passes; a precision that is still to be chosen counts as 16 bits."""
    return 4 if config.training.dtype == "float32" else 2


def windows_of_rank(config: Config, num_ranks: int) -> int:
    """The largest share of a rank of the windows of an update."""
    settings = config.training
    return -(-settings.batch_size * settings.accumulation_steps // num_ranks)


def microbatches_of_rank(config: Config, num_ranks: int) -> int:
    """The number of microbatches of the rank with the largest share."""
    return -(-windows_of_rank(config, num_ranks) // config.training.batch_size)


def ddp_bytes(config: Config, num_ranks: int) -> int:
    """Bytes that a rank sends in an update with whole models: one all-reduce of the gradients."""
    return 2 * (num_ranks - 1) * num_parameters(config.model) * GRADIENT_BYTES // num_ranks


def fsdp_bytes(config: Config, num_ranks: int) -> int:
    """Bytes that a rank sends in an update with slices.

    Each microbatch gathers the blocks for both passes and the other weights once, and reduce-scatters the gradients.
    """
    blocks, all_parameters = block_parameters(config.model), num_parameters(config.model)
    gathered = pass_bytes(config) * (2 * blocks + all_parameters - blocks)
    one = (num_ranks - 1) * (gathered + GRADIENT_BYTES * all_parameters) // num_ranks
    return microbatches_of_rank(config, num_ranks) * one
