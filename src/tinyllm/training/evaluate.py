"""The validation loss on a fixed set of windows, in nats a token and in bits a byte.

Bits a byte do not depend on the tokenizer, so that runs with different vocabularies can be compared.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.training.step import Updater


@dataclass(frozen=True)
class Evaluation:
    """What the model scores on the validation windows."""

    loss: float
    """Nats a token."""
    bits_per_byte: float
    """Bits of all predicted tokens over the bytes of text they stand for."""


@torch.no_grad()
def evaluate(updater: Updater, microbatches: Iterable[Tensor], bytes_of_id: Tensor) -> Evaluation:
    """Mean loss over `microbatches`, each (B, T + 1) int64; `bytes_of_id` (V,) as `token_bytes` gives it."""
    model = updater.worker.eval()
    nats, num_tokens, num_bytes = 0.0, 0, 0
    for tokens in microbatches:
        nats += updater.summed_loss(tokens).item()
        targets = tokens[:, 1:]
        num_tokens += targets.numel()
        num_bytes += int(bytes_of_id[targets].sum())
    model.train()
    return Evaluation(nats / num_tokens, nats / math.log(2) / max(1, num_bytes))


def token_bytes(tokenizer: Tokenizer) -> Tensor:
    """Bytes of text each token id stands for, (V,) int64; control tokens stand for none."""
    return torch.tensor([len(tokenizer.piece_bytes(i)) for i in range(tokenizer.vocab_size)])
