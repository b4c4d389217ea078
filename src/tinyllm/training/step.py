"""One optimizer update: microbatches forward and backward, clip, step; or a skip where numbers went wrong.

The loss is summed over tokens and divided once by their number in the whole update, so that accumulating four
microbatches is the same mathematics as one batch four times as large.

In 16 bits the forward and backward passes run on a copy of the model; the model itself stays float32, receives the
gradients, and lends its rounded weights to the copy after each update (Micikevicius et al. 2018, mixed precision).

Shapes: B windows of a microbatch, T tokens a window predicts, V vocabulary.
"""

import copy
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tinyllm import runtime
from tinyllm.config import Config
from tinyllm.model.attention import AttentionKind
from tinyllm.model.transformer import Transformer
from tinyllm.training.loss import sum_losses, sum_losses_by_kernel
from tinyllm.training.optimizer import build_optimizers

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
        attention: AttentionKind = "fused",
        compiled: bool = False,
    ) -> None:
        self.optimizers = list(optimizers)
        self.device = device
        self.grad_clip = grad_clip or math.inf
        self.worker = model if dtype == "float32" else copy.deepcopy(model).to(DTYPES[dtype])
        self.worker.use_attention(attention)
        self.by_kernel = attention == "tiled"
        self.masters: list[Tensor] = list(model.parameters())
        self.workers: list[Tensor] = list(self.worker.parameters())
        self.gradients = [] if self.worker is model else [torch.zeros_like(p) for p in self.masters]
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16")
        self.compile(compiled)

    def compile(self, enabled: bool) -> None:
        """Whether blocks and loss run through torch.compile, each compiled at its first use; kernels of ours do not."""
        enabled = enabled and not self.by_kernel
        self.worker.compile_blocks(enabled)
        if self.by_kernel:
            self._sum_losses = sum_losses_by_kernel
        else:
            self._sum_losses = runtime.compiled(sum_losses) if enabled else sum_losses

    def update(self, microbatches: Iterable[Tensor], num_tokens: int) -> StepResult:
        """One update from `microbatches`, each (B, T + 1) int64, which predict `num_tokens` tokens in all."""
        total = torch.zeros((), device=self.device)
        for index, tokens in enumerate(microbatches):
            total += self.backward(tokens, num_tokens)
            self._hand_over_gradients(first=index == 0)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.masters, self.grad_clip, foreach=True)
        loss, grad_norm = torch.stack((total, norm)).tolist()  # one wait for the device, not two
        result = StepResult(loss, grad_norm, skipped=self._numbers_went_wrong(loss, grad_norm))
        for optimizer in self.optimizers:
            if not result.skipped:
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.lend_weights()
        return result

    def backward(self, tokens: Tensor, num_tokens: int) -> Tensor:
        """Adds the gradient of `tokens` (B, T + 1) to the worker's; gives their part of the mean loss."""
        hidden = self.worker.hidden_states(tokens[:, :-1])
        part = self._sum_losses(hidden, self.worker.output_weight, tokens[:, 1:]) / num_tokens
        self.scaler.scale(part).backward()  # type: ignore[no-untyped-call]
        return part.detach()

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
        for worker in self.workers:
            worker.grad = None
        return problem

    @torch.no_grad()
    def lend_weights(self) -> None:
        """Rounds the model's weights into the copy; to be called whenever they changed from outside."""
        if self.gradients:
            torch._foreach_copy_(self.workers, self.masters)

    @torch.no_grad()
    def _hand_over_gradients(self, *, first: bool) -> None:
        """Moves the copy's gradients, widened, to the model: microbatches add up in float32."""
        if not self.gradients:
            return
        narrow = [worker.grad for worker in self.workers if worker.grad is not None]
        if first:
            torch._foreach_copy_(self.gradients, narrow)
        else:
            torch._foreach_add_(self.gradients, narrow)
        for master, worker, gradient in zip(self.masters, self.workers, self.gradients, strict=True):
            master.grad, worker.grad = gradient, None

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
