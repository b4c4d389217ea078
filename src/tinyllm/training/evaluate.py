"""The validation loss on a fixed set of windows, in nats a token and in bits a byte.

Bits a byte do not depend on the tokenizer, so that runs with different vocabularies can be compared.
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
    """What the model scores on the validation windows."""

    loss: float
    """Nats a token."""
    bits_per_byte: float
    """Bits of all predicted tokens over the bytes of text they stand for."""


@torch.no_grad()
def evaluate(updater: Updater, microbatches: Iterable[Tensor], text_bytes: TextBytes) -> Evaluation:
    """Mean loss over `microbatches`, each (B, T + 1) int64; `text_bytes` counts what their ids stand for."""
    model = updater.worker.eval()
    nats, num_tokens, num_bytes = 0.0, 0, 0
    for tokens in microbatches:
        nats += updater.summed_loss(tokens).item()
        num_tokens += tokens[:, 1:].numel()
        num_bytes += text_bytes.count_windows(tokens.cpu().numpy())
    model.train()
    return Evaluation(nats / num_tokens, nats / math.log(2) / max(1, num_bytes))
