"""Validation loss on a fixed set of windows, in nats per token and in bits per byte.

Bits per byte do not depend on the tokenizer: they compare runs with different vocabularies.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tinyllm.machine import ranks
from tinyllm.machine.signals import StopRequest
from tinyllm.shards.batches import Windows
from tinyllm.shards.text_bytes import TextBytes
from tinyllm.training.objective import Evaluation
from tinyllm.training.sharding import reshard
from tinyllm.training.step import Updater

ROUNDS_PER_COMPARISON = 8
"""Microbatches of each rank between two exchanges of stop requests: an exchange makes all ranks wait."""


@torch.no_grad()
def evaluate(
    updater: Updater,
    microbatches: Sequence[Windows],
    to_device: Callable[[Windows], Tensor],
    text_bytes: TextBytes,
    stop: StopRequest | None = None,
) -> Evaluation | None:
    """Mean loss over `microbatches`, each (B, T + 1) int64; `text_bytes` counts the bytes of their text.

    The ranks take the microbatches in turn. Their losses are summed in the order of the microbatches, so that the sum
    does not depend on the number of ranks. The losses stay on the device, and are copied and exchanged once.

    Returns None if `stop` of any rank is requested before the last check of it.
    """
    model, num_ranks = updater.shadow.eval(), ranks.num_ranks()
    losses: list[Tensor] = []
    sizes: list[tuple[int, int]] = []
    try:
        for number, first in enumerate(range(0, len(microbatches), num_ranks)):
            if _is_stopped(stop, number):
                return None
            # A rank without a microbatch repeats the last one: the passes of sharded models are exchanges.
            windows = microbatches[min(first + ranks.rank(), len(microbatches) - 1)]
            with ranks.exchanging_passes():
                losses.append(updater.summed_loss(to_device(windows)))
            sizes.append((windows[:, 1:].size, text_bytes.count_windows(windows)))
        with ranks.exchanging_passes():
            nats_of = torch.stack(losses).tolist()
    finally:
        reshard(model)
        model.train()
    parts = [(nats, *size) for nats, size in zip(nats_of, sizes, strict=True)]
    in_order = [part for each in zip(*ranks.gather(parts), strict=True) for part in each][: len(microbatches)]
    nats, num_tokens, num_bytes = (sum(numbers) for numbers in zip(*in_order, strict=True))
    return Evaluation(nats / num_tokens, nats / math.log(2) / max(1, num_bytes))


def _is_stopped(stop: StopRequest | None, number: int) -> bool:
    """Whether the evaluation stops before round `number`: equal on all ranks, which compare every few rounds."""
    is_compared = ranks.num_ranks() == 1 or number % ROUNDS_PER_COMPARISON == 0
    return is_compared and any(ranks.gather(bool(stop)))
