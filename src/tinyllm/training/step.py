"""One optimizer update: microbatches forward and backward, clip, step; skipped if loss or gradient is not finite.

The loss of an update is sum over targets / number of targets of the update, over the microbatches of all ranks. So
four accumulated microbatches equal one batch four times as large, on one rank or on four.

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
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tinyllm.config import Config, ModelConfig
from tinyllm.errors import UsageError
from tinyllm.kernels.train.kernel_pass import KernelPass
from tinyllm.machine import ranks
from tinyllm.model.attention import AttentionKind
from tinyllm.model.transformer import Decoder, Transformer
from tinyllm.training import sharding
from tinyllm.training.loss import NextTokenLoss
from tinyllm.training.objective import Loss
from tinyllm.training.optimizer import build_optimizers
from tinyllm.training.trainable import Trains, frozen_names, train_only

TrainingAttention = Literal[AttentionKind, "tiled"]
"""`tiled` enables every custom kernel."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """Loss and gradient norm of one update."""

    loss: float
    """Mean loss of the update's targets under the weights before it, in nats a target."""
    grad_norm: float
    """Global norm of the gradient before clipping."""
    skipped: bool
    """Whether the weights stayed the same because the loss or the gradient was not finite."""


class Updater:
    """Applies updates to a model: its optimizers, its 16-bit shadow, and for float16 the gradient scaler.

    In float32 the shadow is the model itself. Only parameters that require a gradient train (`trainable.py`).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        dtype: str,
        grad_clip: float,
        device: torch.device,
        attention: TrainingAttention = "fused",
        compiled: bool = False,
        loss: Loss | None = None,
    ) -> None:
        """`model` is a language model, or another module with a `Decoder` named `model`.

        `loss` is by default the next-token loss. Raises UsageError if the custom kernels cannot train this.
        """
        self.loss: Loss = loss or NextTokenLoss()
        self.optimizers = list(optimizers)
        self.device = device
        self.grad_clip = grad_clip or math.inf
        self.model = model
        self.is_sharded = sharding.is_sharded(model)
        # A sharded model rounds its weights itself, block by block.
        is_own = dtype == "float32" or self.is_sharded
        self.shadow = model if is_own else copy.deepcopy(model).to(DTYPES[dtype])
        self.kernels = None
        if attention == "tiled":
            self.kernels = _build_kernels(self.shadow, self.loss)
        else:
            _decoder(self.shadow).use_attention(attention)
        self.weights: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.shadow_weights: list[Tensor] = [p for p in self.shadow.parameters() if p.requires_grad]
        self.gradients = [] if self.shadow is model else [torch.zeros_like(p) for p in self.weights]
        if self.kernels is not None:
            self.gradients = self.kernels.gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16")
        self.compile(compiled)

    def compile(self, enabled: bool) -> None:
        """Enables or disables torch.compile for blocks and loss, compiled at first use; no effect on custom kernels."""
        enabled = enabled and self.kernels is None
        _decoder(self.shadow).compile_blocks(enabled)
        self.loss.compile(enabled)

    def update(self, microbatches: Iterable[Any], num_targets: int) -> StepResult:
        """Does one update from `microbatches`, batches of the loss; those of all ranks have `num_targets` targets.

        Raises ValueError if there is no target: the mean loss does not exist. Raises UsageError, and changes no
        weight, if a parameter that trains gets no gradient.
        """
        if num_targets < 1:
            raise ValueError(f"an update needs at least 1 target, and its batches have {num_targets}")
        total = torch.zeros((), device=self.device)
        with ranks.exchanging_passes():
            for index, batch in enumerate(microbatches):
                total += self.backward(batch, num_targets, first=index == 0)
        # The custom kernels have all gradients in one flat tensor.
        gradients = self._collect_gradients() if self.kernels is None else [self.kernels.gradient]
        ranks.add_up([total] if self.is_sharded else [total, *gradients])
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = sharding.total_norm(gradients) if self.kernels is None else self.kernels.gradient_norm()
        loss, grad_norm = torch.stack((total, norm)).tolist()  # one synchronization, not two
        result = StepResult(loss, grad_norm, skipped=self._must_skip(loss, grad_norm))
        if not result.skipped and grad_norm > self.grad_clip:
            torch._foreach_mul_(gradients, self.grad_clip / grad_norm)
        for optimizer in self.optimizers:
            if not result.skipped:
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self._round_weights()
        return result

    def backward(self, batch: Any, num_targets: int, *, first: bool = True) -> Tensor:
        """Accumulates the gradient of `batch`; returns its share of the mean loss over `num_targets` targets.

        In 16 bits the `first` microbatch of an update overwrites the gradient instead.
        """
        if self.kernels is not None:
            part = self.kernels.backward(*self._inputs_and_targets(batch), num_targets, accumulate=not first)
            for weight, gradient in zip(self.weights, self.gradients, strict=True):
                weight.grad = gradient
        else:
            part = self.loss.loss(self.shadow, batch) / num_targets
            self.scaler.scale(part).backward()  # type: ignore[no-untyped-call]
            if self.shadow is not self.model:
                self._widen_gradients(first=first)
        return part.detach()

    def _collect_gradients(self) -> list[Tensor]:
        """The gradient of each parameter that trains. Raises UsageError naming a parameter that has none.

        An optimizer would keep no moments for that parameter, so a checkpoint of the run could not be resumed.
        """
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        if len(gradients) < len(self.weights):
            names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
            unused = [names[weight] for weight in self.weights if weight.grad is None]
            others = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
            raise UsageError(
                f"{unused[0]}{others} would train, but the {self.loss.name} gives no gradient for it",
                hint="leave it out of the parameters that train",
            )
        return gradients

    @torch.no_grad()
    def summed_loss(self, batch: Any) -> Tensor:
        """The loss of `batch`, summed over its targets: scalar float32, in nats."""
        if self.kernels is not None:
            return self.kernels.summed_loss(*self._inputs_and_targets(batch))
        return self.loss.loss(self.shadow, batch)

    def warm_up(self, batch: Any) -> str:
        """Compiles by a pass over `batch` that changes no weight; returns the reason if that fails.

        After a failure, updates run without torch.compile. Usual causes are missing headers and a read-only disk.
        """
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # internal advice of the compiler
                self.backward(batch, 1)
        except (RuntimeError, OSError) as error:
            self.compile(False)
            problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        for parameter in (*self.shadow_weights, *self.weights):
            parameter.grad = None
        return problem

    @torch.no_grad()
    def sync_shadow(self) -> None:
        """Copies all weights of the model, rounded, into the shadow; call it after changing weights from outside."""
        if self.gradients:
            torch._foreach_copy_(list(self.shadow.parameters()), list(self.model.parameters()))

    @torch.no_grad()
    def _round_weights(self) -> None:
        """Copies the weights that train, rounded, into the shadow."""
        if self.gradients:
            torch._foreach_copy_(self.shadow_weights, self.weights)

    @torch.no_grad()
    def _widen_gradients(self, *, first: bool) -> None:
        """Adds the shadow's 16-bit gradients to the float32 gradients, or overwrites these if `first`.

        A weight without a gradient in any microbatch of the update keeps `grad` None, as in float32.
        """
        new: tuple[list[Tensor], list[Tensor]] = [], []
        further: tuple[list[Tensor], list[Tensor]] = [], []
        for weight, shadow, gradient in zip(self.weights, self.shadow_weights, self.gradients, strict=True):
            if first:
                weight.grad = None
            if shadow.grad is None:
                continue
            wide, narrow = new if weight.grad is None else further
            wide.append(gradient)
            narrow.append(shadow.grad)
            weight.grad, shadow.grad = gradient, None
        if new[0]:
            torch._foreach_copy_(*new)
        if further[0]:
            torch._foreach_add_(*further)

    def _inputs_and_targets(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Input tokens and targets of `batch` for the custom kernels: (B, T) int64 each."""
        assert isinstance(self.loss, NextTokenLoss), "kernels_refusal refuses other losses"
        return self.loss.inputs_and_targets(batch)

    def _must_skip(self, loss: float, grad_norm: float) -> bool:
        # A float16 gradient may overflow because the scale is too large: the scaler skips the update and halves the
        # scale by itself. A scale below 1 is not the cause of an overflow.
        if self.scaler.is_enabled() and math.isfinite(loss) and self.scaler.get_scale() >= 1:
            return False
        return not (math.isfinite(loss) and math.isfinite(grad_norm))


def kernels_refusal(model: nn.Module, loss: Loss) -> str:
    """Why the custom kernels cannot train `model` for `loss`; empty if they can."""
    if not isinstance(loss, NextTokenLoss) or not isinstance(model, Transformer):
        return f"tiled attention computes the {NextTokenLoss.name} of a language model, not the {loss.name}"
    frozen = frozen_names(model)
    if frozen:
        return f"tiled attention trains every parameter, and {frozen[0]} is frozen"
    return biases_refusal(model.config)


def biases_refusal(config: ModelConfig) -> str:
    """Why the custom kernels cannot train a model of `config`; empty if they can."""
    biased = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name)]
    return f"tiled attention has no biases, and model.{biased[0]} is true" if biased else ""


def _build_kernels(model: nn.Module, loss: Loss) -> KernelPass:
    refusal = kernels_refusal(model, loss)
    if refusal:
        raise UsageError(f"{refusal}; choose training.attention explicit or fused")
    assert isinstance(model, Transformer)
    return KernelPass(model)


def _decoder(model: nn.Module) -> Decoder:
    decoder = model.model
    assert isinstance(decoder, Decoder)
    return decoder


def build_updater(
    model: nn.Module,
    config: Config,
    device: torch.device,
    loss: Loss | None = None,
    trains: Trains | None = None,
) -> Updater:
    """The updater for `config`, in which no setting is `auto`.

    `loss` is by default the next-token loss. `trains` freezes the other parameters of `model`; without it, the
    parameters that require a gradient train. Raises UsageError if the custom kernels cannot train this.
    """
    settings = config.training
    assert settings.dtype != "auto"
    assert settings.attention != "auto"
    if trains is not None:
        train_only(model, trains)
    products = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    return Updater(
        model,
        build_optimizers(model, config.optimizer, products),
        dtype=settings.dtype,
        grad_clip=config.optimizer.grad_clip,
        device=device,
        attention=settings.attention,
        compiled=settings.compile == "on",
        loss=loss,
    )
