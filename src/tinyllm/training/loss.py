"""The loss of language models: cross entropy of the next tokens, summed over the targets that count.

`KernelPass` computes the same loss on the custom kernels, `chunked_loss` on GPUs without whole logits.

Shapes: B windows, T tokens a window predicts, D model size, V vocabulary.
"""

from typing import Any, final

import torch.nn.functional as F
from torch import Tensor

from tinyllm.kernels.train import operators
from tinyllm.machine import compiler
from tinyllm.model.transformer import Transformer
from tinyllm.training import chunked_loss, memory

IGNORED = operators.IGNORED
"""A target that does not count: its position has no loss and no gradient."""


class NextTokenLoss:
    """Cross entropy of next tokens, the loss that the custom kernels compute.

    A batch is `tokens` (B, T + 1) int64 in which every next token counts. An objective with another batch, or with
    targets that do not count, overrides `inputs_and_targets` alone.
    """

    name = "next-token loss"

    def __init__(self) -> None:
        self._sum_losses = sum_losses
        self._chunk_loss: chunked_loss.ChunkLoss = chunked_loss.loss_and_gradient

    def compile(self, enabled: bool) -> None:
        """Enables or disables torch.compile for the loss in training; compilation happens at the first batch."""
        self._sum_losses = compiler.compiled(sum_losses) if enabled else sum_losses
        chunk_loss = chunked_loss.loss_and_gradient
        self._chunk_loss = compiler.compiled(chunk_loss) if enabled else chunk_loss

    def inputs_and_targets(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The input tokens of `batch` and the token that follows each, or `IGNORED`: (B, T) int64 each."""
        return batch[:, :-1], batch[:, 1:]

    @final
    def loss(self, model: Transformer, batch: Any) -> Tensor:
        """Summed cross entropy of the targets of `batch`: scalar float32, in nats."""
        inputs, targets = self.inputs_and_targets(batch)
        hidden, weight = model.hidden_states(inputs), model.output_weight
        if chunked_loss.pays_off(hidden, weight):
            num_tokens = memory.chunk_tokens(len(weight))
            return chunked_loss.sum_losses_in_chunks(hidden, weight, targets, num_tokens, self._chunk_loss)
        # Evaluation stays eager: its last batch may have another shape, which would compile again.
        sum_of = self._sum_losses if model.training else sum_losses
        return sum_of(hidden, weight, targets)


def sum_losses(hidden: Tensor, output_weight: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy of `targets` (B, T) given `hidden` (B, T, D); logits have the model's dtype.

    Targets equal to `IGNORED` do not count.
    """
    logits = F.linear(hidden, output_weight)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def count_targets(targets: Tensor) -> int:
    """The number of `targets` that count."""
    return int((targets != IGNORED).sum())
