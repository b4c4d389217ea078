"""One optimizer update: microbatches forward and backward, clip, step; or a skip where numbers went wrong.

The loss is summed over tokens and divided once by their number in the whole update, so that accumulating four
microbatches is the same mathematics as one batch four times as large.

In 16 bits the forward and backward passes run on a copy of the model; the model itself stays float32, receives the
gradients, and lends its rounded weights to the copy after each update (Micikevicius et al. 2018, mixed precision).
The passes are autograd's, or those of our own kernels (`kernel_pass.py`).

Shapes: B windows of a microbatch, T tokens a window predicts, V vocabulary.
"""

import copy
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tinyllm import runtime
from tinyllm.config import Config
from tinyllm.model.attention import AttentionKind
from tinyllm.model.transformer import Transformer
from tinyllm.training.kernel_pass import KernelPass
from tinyllm.training.loss import sum_losses, summed_loss
from tinyllm.training.optimizer import build_optimizers

TrainingAttention = Literal[AttentionKind, "tiled"]
"""`tiled` is that of our own kernels; who takes it takes all of them."""
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
    """Applies updates to a model: its optimizers, its copy in 16 bits, and for float16 alone the gradient scaler."""

    def __init__(
        self,
        model: Transformer,
        optimizers: Sequence[Optimizer],
        *,
        dtype: str,
        grad_clip: float,
        device: torch.device,
        attention: TrainingAttention = "fused",
        compiled: bool = False,
    ) -> None:
        self.optimizers = list(optimizers)
        self.device = device
        self.grad_clip = grad_clip or math.inf
        self.worker = model if dtype == "float32" else copy.deepcopy(model).to(DTYPES[dtype])
        self.kernels = None
        if attention == "tiled":
            self.kernels = KernelPass(self.worker)
        else:
            self.worker.use_attention(attention)
        self.masters: list[Tensor] = list(model.parameters())
        self.workers: list[Tensor] = list(self.worker.parameters())
        self.gradients = [] if self.worker is model else [torch.zeros_like(p) for p in self.masters]
        if self.kernels is not None:
            self.gradients = self.kernels.gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16")
        self.compile(compiled)

    def compile(self, enabled: bool) -> None:
        """Whether blocks and loss run through torch.compile, each compiled at its first use; kernels of ours do not."""
        enabled = enabled and self.kernels is None
        self.worker.compile_blocks(enabled)
        self._sum_losses = runtime.compiled(sum_losses) if enabled else sum_losses

    def update(self, microbatches: Iterable[Tensor], num_tokens: int) -> StepResult:
        """One update from `microbatches`, each (B, T + 1) int64, which predict `num_tokens` tokens in all."""
        total = torch.zeros((), device=self.device)
        for index, tokens in enumerate(microbatches):
            total += self.backward(tokens, num_tokens, first=index == 0)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.kernels is None:
            gradients = [master.grad for master in self.masters if master.grad is not None]
            norm = nn.utils.get_total_norm(gradients, foreach=True)
        else:
            gradients = [self.kernels.gradient]  # the same, as one
            norm = self.kernels.gradient_norm()
        loss, grad_norm = torch.stack((total, norm)).tolist()  # one wait for the device, not two
        result = StepResult(loss, grad_norm, skipped=self._numbers_went_wrong(loss, grad_norm))
        if not result.skipped and grad_norm > self.grad_clip:
            torch._foreach_mul_(gradients, self.grad_clip / grad_norm)
        for optimizer in self.optimizers:
            if not result.skipped:
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.lend_weights()
        return result

    def backward(self, tokens: Tensor, num_tokens: int, *, first: bool = True) -> Tensor:
        """Adds the gradient of `tokens` (B, T + 1) to the model's; gives their part of the mean loss.

        In 16 bits the `first` of an update takes the place of what is there.
        """
        if self.kernels is not None:
            part = self.kernels.backward(tokens, num_tokens, adds=not first)
        else:
            hidden = self.worker.hidden_states(tokens[:, :-1])
            part = self._sum_losses(hidden, self.worker.output_weight, tokens[:, 1:]) / num_tokens
            self.scaler.scale(part).backward()  # type: ignore[no-untyped-call]
            self._widen_gradients(first=first)
        if self.gradients:
            for master, gradient in zip(self.masters, self.gradients, strict=True):
                master.grad = gradient
        return part.detach()

    @torch.no_grad()
    def summed_loss(self, tokens: Tensor) -> Tensor:
        """Cross entropy of each window's next tokens, summed: `tokens` (B, T + 1) -> scalar float32, in nats."""
        if self.kernels is not None:
            return self.kernels.summed_loss(tokens)
        return summed_loss(self.worker, tokens)

    def warm_up(self, tokens: Tensor) -> str:
        """Compiles by a pass over `tokens` (B, T + 1) that changes nothing; where it fails, gives the reason.

        Then updates run without it. Compilers fail in many ways: without their headers, without a place to write ...
        """
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # advice to people who write compilers
                self.backward(tokens, 1)
        except (RuntimeError, OSError) as error:
            self.compile(False)
            problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        for parameter in (*self.workers, *self.masters):
            parameter.grad = None
        return problem

    @torch.no_grad()
    def lend_weights(self) -> None:
        """Rounds the model's weights into the copy; to be called whenever they changed from outside."""
        if self.gradients:
            torch._foreach_copy_(self.workers, self.masters)

    @torch.no_grad()
    def _widen_gradients(self, *, first: bool) -> None:
        """Takes the copy's gradients in 16 bits and adds them up in float32."""
        if not self.gradients:
            return
        narrow = [worker.grad for worker in self.workers if worker.grad is not None]
        if first:
            torch._foreach_copy_(self.gradients, narrow)
        else:
            torch._foreach_add_(self.gradients, narrow)
        for worker in self.workers:
            worker.grad = None

    def _numbers_went_wrong(self, loss: float, grad_norm: float) -> bool:
        # A float16 gradient may overflow on the way to the right scale; then the scaler skips and halves by itself.
        # Below 1 the scale cannot be what made it overflow.
        if self.scaler.is_enabled() and math.isfinite(loss) and self.scaler.get_scale() >= 1:
            return False
        return not (math.isfinite(loss) and math.isfinite(grad_norm))


def build_updater(model: Transformer, config: Config, device: torch.device) -> Updater:
    """The updater that `config` asks for, where no setting is `auto`."""
    settings = config.training
    assert settings.dtype != "auto"
    assert settings.attention != "auto"
    products = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    return Updater(
        model,
        build_optimizers(model, config.optimizer, products),
        dtype=settings.dtype,
        grad_clip=config.optimizer.grad_clip,
        device=device,
        attention=settings.attention,
        compiled=settings.compile == "on",
    )
