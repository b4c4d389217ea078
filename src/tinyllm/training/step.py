"""One optimizer update: microbatches forward and backward, clip, step; skipped if loss or gradient is not finite.

The loss of an update is sum over tokens / number of tokens of the update. So four accumulated microbatches equal one
batch four times as large.

In 16 bits the forward and backward passes run on a 16-bit copy of the model, the shadow. The model itself stays
float32: it receives the shadow's gradients, and the shadow its rounded weights (mixed precision, Micikevicius et al.
2018). The passes are autograd's, or the custom kernels' (`kernel_pass.py`).

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

from tinyllm.config import Config
from tinyllm.kernels.train.kernel_pass import KernelPass
from tinyllm.machine import compiler
from tinyllm.model.attention import AttentionKind
from tinyllm.model.transformer import Transformer
from tinyllm.training.loss import sum_losses, summed_loss
from tinyllm.training.optimizer import build_optimizers

TrainingAttention = Literal[AttentionKind, "tiled"]
"""`tiled` enables every custom kernel."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """Loss and gradient norm of one update."""

    loss: float
    """Mean loss of the update's tokens under the weights before it, in nats a token."""
    grad_norm: float
    """Global norm of the gradient before clipping."""
    skipped: bool
    """Whether the weights stayed the same because the loss or the gradient was not finite."""


class Updater:
    """Applies updates to a model: its optimizers, its 16-bit shadow, and for float16 the gradient scaler.

    In float32 the shadow is the model itself.
    """

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
        self.shadow = model if dtype == "float32" else copy.deepcopy(model).to(DTYPES[dtype])
        self.kernels = None
        if attention == "tiled":
            self.kernels = KernelPass(self.shadow)
        else:
            self.shadow.use_attention(attention)
        self.weights: list[Tensor] = list(model.parameters())
        self.shadow_weights: list[Tensor] = list(self.shadow.parameters())
        self.gradients = [] if self.shadow is model else [torch.zeros_like(p) for p in self.weights]
        if self.kernels is not None:
            self.gradients = self.kernels.gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16")
        self.compile(compiled)

    def compile(self, enabled: bool) -> None:
        """Enables or disables torch.compile for blocks and loss, compiled at first use; no effect on custom kernels."""
        enabled = enabled and self.kernels is None
        self.shadow.compile_blocks(enabled)
        self._sum_losses = compiler.compiled(sum_losses) if enabled else sum_losses

    def update(self, microbatches: Iterable[Tensor], num_tokens: int) -> StepResult:
        """Does one update from `microbatches`, each (B, T + 1) int64, that predict `num_tokens` tokens in total."""
        total = torch.zeros((), device=self.device)
        for index, tokens in enumerate(microbatches):
            total += self.backward(tokens, num_tokens, first=index == 0)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.kernels is None:
            gradients = [weight.grad for weight in self.weights if weight.grad is not None]
            norm = nn.utils.get_total_norm(gradients, foreach=True)
        else:
            gradients = [self.kernels.gradient]  # all gradients, in one flat tensor
            norm = self.kernels.gradient_norm()
        loss, grad_norm = torch.stack((total, norm)).tolist()  # one synchronization, not two
        result = StepResult(loss, grad_norm, skipped=self._must_skip(loss, grad_norm))
        if not result.skipped and grad_norm > self.grad_clip:
            torch._foreach_mul_(gradients, self.grad_clip / grad_norm)
        for optimizer in self.optimizers:
            if not result.skipped:
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.sync_shadow()
        return result

    def backward(self, tokens: Tensor, num_tokens: int, *, first: bool = True) -> Tensor:
        """Accumulates the gradient of `tokens` (B, T + 1); returns their share of the mean loss.

        In 16 bits the `first` microbatch of an update overwrites the gradient instead.
        """
        if self.kernels is not None:
            part = self.kernels.backward(tokens, num_tokens, accumulate=not first)
        else:
            hidden = self.shadow.hidden_states(tokens[:, :-1])
            part = self._sum_losses(hidden, self.shadow.output_weight, tokens[:, 1:]) / num_tokens
            self.scaler.scale(part).backward()  # type: ignore[no-untyped-call]
            self._widen_gradients(first=first)
        if self.gradients:
            for weight, gradient in zip(self.weights, self.gradients, strict=True):
                weight.grad = gradient
        return part.detach()

    @torch.no_grad()
    def summed_loss(self, tokens: Tensor) -> Tensor:
        """Summed cross entropy of the next tokens of `tokens` (B, T + 1): scalar float32, in nats."""
        if self.kernels is not None:
            return self.kernels.summed_loss(tokens)
        return summed_loss(self.shadow, tokens)

    def warm_up(self, tokens: Tensor) -> str:
        """Compiles by a pass over `tokens` (B, T + 1) that changes no weight; returns the reason if that fails.

        After a failure, updates run without torch.compile. Usual causes are missing headers and a read-only disk.
        """
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # internal advice of the compiler
                self.backward(tokens, 1)
        except (RuntimeError, OSError) as error:
            self.compile(False)
            problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        for parameter in (*self.shadow_weights, *self.weights):
            parameter.grad = None
        return problem

    @torch.no_grad()
    def sync_shadow(self) -> None:
        """Copies the model's weights, rounded, into the shadow; call it after changing weights from outside."""
        if self.gradients:
            torch._foreach_copy_(self.shadow_weights, self.weights)

    @torch.no_grad()
    def _widen_gradients(self, *, first: bool) -> None:
        """Adds the shadow's 16-bit gradients to the float32 gradients, or overwrites these if `first`."""
        if not self.gradients:
            return
        narrow = [shadow.grad for shadow in self.shadow_weights if shadow.grad is not None]
        if first:
            torch._foreach_copy_(self.gradients, narrow)
        else:
            torch._foreach_add_(self.gradients, narrow)
        for shadow in self.shadow_weights:
            shadow.grad = None

    def _must_skip(self, loss: float, grad_norm: float) -> bool:
        # A float16 gradient may overflow because the scale is too large: the scaler skips the update and halves the
        # scale by itself. A scale below 1 is not the cause of an overflow.
        if self.scaler.is_enabled() and math.isfinite(loss) and self.scaler.get_scale() >= 1:
            return False
        return not (math.isfinite(loss) and math.isfinite(grad_norm))


def build_updater(model: Transformer, config: Config, device: torch.device) -> Updater:
    """The updater for `config`, in which no setting is `auto`."""
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
