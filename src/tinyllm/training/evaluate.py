"""Validation loss on a fixed set of windows, in nats a token and in bits a byte.

Bits a byte do not depend on the tokenizer: they compare runs with different vocabularies.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllm.shards.text_bytes import TextBytes
from tinyllm.training.step import Updater


@dataclass(frozen=True)
class Evaluation:
    """Loss of the model on the validation windows."""

    loss: float
    """Nats a token."""
    bits_per_byte: float
    """Total bits of the predicted tokens / bytes of their text."""


@torch.no_grad()
def evaluate(updater: Updater, microbatches: Iterable[Tensor], text_bytes: TextBytes) -> Evaluation:
    """Mean loss over `microbatches`, each (B, T + 1) int64; `text_bytes` counts the bytes of their text."""
    model = updater.shadow.eval()
    nats, num_tokens, num_bytes = 0.0, 0, 0
    for tokens in microbatches:
        nats += updater.summed_loss(tokens).item()
        num_tokens += tokens[:, 1:].numel()
        num_bytes += text_bytes.count_windows(tokens.cpu().numpy())
    model.train()
    return Evaluation(nats / num_tokens, nats / math.log(2) / max(1, num_bytes))
