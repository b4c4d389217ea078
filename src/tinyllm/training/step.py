"""One optimizer update: microbatches forward and backward, clip, step; or a skip where numbers went wrong.

The loss is summed over tokens and divided once by their number in the whole update, so that accumulating four
microbatches is the same mathematics as one batch four times as large.

In 16 bits the forward and backward passes run on a copy of the model; the model itself stays float32, receives the
gradients, and lends its rounded weights to the copy after each update (Micikevicius et al. 2018, mixed precision).

Shapes: B windows of a microbatch, T tokens a window predicts, V vocabulary.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """What one update did."""

    loss: float
    """Mean loss of the update's tokens before it, in nats a token."""
    grad_norm: float
    """Global norm of the gradient before clipping."""
    skipped: bool
    """Whether the weights were left alone because the loss or the gradient was not finite."""


class Updater:
    """Applies updates to a model: its optimizer, its copy in 16 bits, and for float16 alone the gradient scaler."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, dtype: str, grad_clip: float, device: torch.device
    ) -> None:
        self.optimizer = optimizer
        self.device = device
        self.grad_clip = grad_clip or math.inf
        self.worker = model if dtype == "float32" else copy.deepcopy(model).to(DTYPES[dtype])
        self.masters: list[Tensor] = list(model.parameters())
        self.workers: list[Tensor] = list(self.worker.parameters())
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16")

    def update(self, microbatches: Iterable[Tensor], num_tokens: int) -> StepResult:
        """One update from `microbatches`, each (B, T + 1) int64, which predict `num_tokens` tokens in all."""
        loss = torch.zeros((), device=self.device)
        for tokens in microbatches:
            part = summed_loss(self.worker, tokens) / num_tokens
            self.scaler.scale(part).backward()  # type: ignore[no-untyped-call]
            self._hand_over_gradients()
            loss += part.detach()
        self.scaler.unscale_(self.optimizer)
        grad_norm = nn.utils.clip_grad_norm_(self.masters, self.grad_clip).item()
        result = StepResult(loss.item(), grad_norm, skipped=self._numbers_went_wrong(loss.item(), grad_norm))
        if not result.skipped:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.lend_weights()
        return result

    @torch.no_grad()
    def lend_weights(self) -> None:
        """Rounds the model's weights into the copy; to be called whenever they changed from outside."""
        if self.workers[0] is not self.masters[0]:
            torch._foreach_copy_(self.workers, self.masters)

    def _hand_over_gradients(self) -> None:
        """Adds the copy's gradients, widened, to the model's: microbatches add up in float32."""
        for master, worker in zip(self.masters, self.workers, strict=True):
            if worker is master or worker.grad is None:
                continue
            wide = worker.grad.float()
            master.grad = wide if master.grad is None else master.grad.add_(wide)
            worker.grad = None

    def _numbers_went_wrong(self, loss: float, grad_norm: float) -> bool:
        # A float16 gradient may overflow on the way to the right scale; then the scaler skips and halves by itself.
        # Below 1 the scale cannot be what made it overflow.
        if self.scaler.is_enabled() and math.isfinite(loss) and self.scaler.get_scale() >= 1:
            return False
        return not (math.isfinite(loss) and math.isfinite(grad_norm))


def summed_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Cross entropy of each window's next tokens, summed: `tokens` (B, T + 1) int64 -> scalar float32, in nats."""
    logits: Tensor = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="sum")
