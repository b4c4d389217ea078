"""The loss: cross entropy of the next tokens, summed over tokens.

Shapes: B windows, T tokens a window predicts, D model size, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor

from tinyllm.model.transformer import Transformer


def summed_loss(model: Transformer, tokens: Tensor) -> Tensor:
    """Summed cross entropy of the next tokens of `tokens` (B, T + 1) int64: scalar float32, in nats."""
    return sum_losses(model.hidden_states(tokens[:, :-1]), model.output_weight, tokens[:, 1:])


def sum_losses(hidden: Tensor, output_weight: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy of `targets` (B, T) given `hidden` (B, T, D); logits have the model's dtype."""
    logits = F.linear(hidden, output_weight)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
