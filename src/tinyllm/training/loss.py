"""The loss of language models: cross entropy of the next tokens, summed over the targets that count.

Shapes: B windows, T tokens a window predicts, D model size, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor

from tinyllm.machine import compiler
from tinyllm.model.transformer import Transformer

IGNORED = -100
"""A target that does not count: its position has no loss and no gradient."""


class NextTokenLoss:
    """Cross entropy of every next token; a batch is `tokens` (B, T + 1) int64."""

    name = "next-token loss"
    fits_kernels = True

    def __init__(self) -> None:
        self._sum_losses = sum_losses

    def compile(self, enabled: bool) -> None:
        """Enables or disables torch.compile for the loss in training; compilation happens at the first batch."""
        self._sum_losses = compiler.compiled(sum_losses) if enabled else sum_losses

    def loss(self, model: Transformer, batch: Tensor) -> Tensor:
        """Summed cross entropy of the next tokens of `batch`: scalar float32, in nats."""
        # Evaluation stays eager: its last batch may have another shape, which would compile again.
        sum_of = self._sum_losses if model.training else sum_losses
        return sum_of(model.hidden_states(batch[:, :-1]), model.output_weight, batch[:, 1:])


def sum_losses(hidden: Tensor, output_weight: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy of `targets` (B, T) given `hidden` (B, T, D); logits have the model's dtype.

    Targets equal to `IGNORED` do not count.
    """
    logits = F.linear(hidden, output_weight)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def count_targets(targets: Tensor) -> int:
    """The number of `targets` that count."""
    return int((targets != IGNORED).sum())
