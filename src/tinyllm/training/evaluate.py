"""Validation loss on a fixed set of windows, in nats per token and in bits per byte.

Bits per byte do not depend on the tokenizer: they compare runs with different vocabularies.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from tinyllm.machine.signals import StopRequest
from tinyllm.shards.text_bytes import TextBytes
from tinyllm.training.objective import Evaluation
from tinyllm.training.step import Updater


@torch.no_grad()
def evaluate(
    updater: Updater, microbatches: Iterable[Tensor], text_bytes: TextBytes, stop: StopRequest | None = None
) -> Evaluation | None:
    """Mean loss over `microbatches`, each (B, T + 1) int64; `text_bytes` counts the bytes of their text.

    Returns None if `stop` is requested before the last microbatch.
    """
    model = updater.shadow.eval()
    nats, num_tokens, num_bytes = 0.0, 0, 0
    try:
        for tokens in microbatches:
            if stop:
                return None
            nats += updater.summed_loss(tokens).item()
            num_tokens += tokens[:, 1:].numel()
            num_bytes += text_bytes.count_windows(tokens.cpu().numpy())
    finally:
        model.train()
    return Evaluation(nats / num_tokens, nats / math.log(2) / max(1, num_bytes))
