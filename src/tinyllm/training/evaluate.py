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
    does not depend on the number of ranks. Returns None if `stop` of any rank is requested before the last microbatch.
    """
    model, num_ranks = updater.shadow.eval(), ranks.num_ranks()
    parts: list[tuple[float, int, int]] = []
    try:
        for first in range(0, len(microbatches), num_ranks):
            if any(ranks.gather(bool(stop))):
                return None
            # A rank without a microbatch repeats the last one: the passes of sharded models are exchanges.
            windows = microbatches[min(first + ranks.rank(), len(microbatches) - 1)]
            with ranks.exchanging_passes():
                nats = updater.summed_loss(to_device(windows)).item()
            parts.append((nats, windows[:, 1:].size, text_bytes.count_windows(windows)))
    finally:
        reshard(model)
        model.train()
    in_order = [part for each in zip(*ranks.gather(parts), strict=True) for part in each][: len(microbatches)]
    nats, num_tokens, num_bytes = (sum(numbers) for numbers in zip(*in_order, strict=True))
    return Evaluation(nats / num_tokens, nats / math.log(2) / max(1, num_bytes))
