"""The cost of a run on one device or many: FLOPs, bytes on the wire, memory, time and money. Arithmetic alone.

FLOPs are counted as in PaLM (Chowdhery et al. 2022, appendix B): 6 N a token for the N weights of matrix products
(Kaplan et al. 2020), and 12 x layers x width x window for attention. The time of an update is

    FLOPs / (devices x rate) + bytes on the wire / link

without overlap: gradients of whole models are summed after the last backward pass.
"""

from dataclasses import dataclass
from typing import Literal

from tinyllm.config import Config
from tinyllm.doctor.traffic import GRADIENT_BYTES, ddp_bytes, fsdp_bytes, microbatches_of_rank, pass_bytes
from tinyllm.doctor.traffic import windows_of_rank as share_of
from tinyllm.errors import UsageError
from tinyllm.model.size import block_parameters, num_parameters, training_flops_per_token
from tinyllm.training.memory import activation_bytes

MOMENT_BYTES = 8
"""AdamW's two moments in float32."""
Parallel = Literal["none", "ddp", "fsdp"]


@dataclass(frozen=True)
class Rate:
    """The speed and the limits of one device, and the source of the numbers."""

    flops_per_second: float
    """FLOPs of the model that the device computes in a second of training."""
    reason: str
    peak_flops_per_second: float | None = None
    memory_bytes: float | None = None
    """Memory for a run; None if unknown."""
    link_bytes_per_second: float | None = None
    """Bytes that a device sends to others in a second; None if unknown."""
    is_gpu: bool = False
    """Whether it is a GPU of CUDA or ROCm, where the head's loss runs in chunks."""


@dataclass(frozen=True)
class Cost:
    """The cost of a run of `config` on `num_devices` devices of one rate."""

    config: Config
    num_devices: int
    rate: Rate

    def __post_init__(self) -> None:
        num_windows = self.config.training.batch_size * self.config.training.accumulation_steps
        if not 1 <= self.num_devices <= num_windows:
            raise UsageError(
                f"gpus is {self.num_devices}; an update has {num_windows} windows, at least one a GPU: "
                "use fewer, or raise training.batch_size or training.accumulation_steps",
                parameter="gpus",
            )

    @property
    def num_tokens(self) -> int:
        """Tokens that the run trains on."""
        return self.config.schedule.num_steps * self.config.tokens_per_step

    @property
    def flops_per_token(self) -> int:
        """FLOPs of one token in both passes, with attention over a window."""
        window = self.config.training.sequence_length
        return training_flops_per_token(self.config.model.model_copy(update={"context_length": window}))

    @property
    def attention_flops_per_token(self) -> int:
        """The part of attention in `flops_per_token`: Q K^T and P V."""
        model = self.config.model
        return 12 * model.num_layers * model.attention_size * self.config.training.sequence_length

    @property
    def flops(self) -> int:
        """FLOPs of the run."""
        return self.flops_per_token * self.num_tokens

    def wire_bytes(self, parallel: Parallel) -> int:
        """Bytes that each device sends in an update."""
        if parallel == "none" or self.num_devices == 1:
            return 0
        return (ddp_bytes if parallel == "ddp" else fsdp_bytes)(self.config, self.num_devices)

    def state_bytes(self, parallel: Parallel) -> int:
        """Bytes of weights, gradients, moments and 16-bit copies on a device."""
        all_parameters, small = num_parameters(self.config.model), pass_bytes(self.config)
        states = all_parameters * (4 + GRADIENT_BYTES + MOMENT_BYTES)
        if parallel != "fsdp" or self.num_devices == 1:
            return states + (all_parameters * 2 * small if small < 4 else 0)
        blocks = block_parameters(self.config.model)
        # Gathered at once: the weights outside the blocks, this block, and the next one.
        gathered = all_parameters - blocks + 2 * blocks // self.config.model.num_layers
        return -(-states // self.num_devices) + gathered * small

    def memory_bytes(self, parallel: Parallel) -> int:
        """Bytes of states and activations on a device."""
        return self.state_bytes(parallel) + self.activation_bytes()

    def activation_bytes(self) -> int:
        """Bytes of the activations of one microbatch on a device."""
        settings = self.config.training
        windows = min(settings.batch_size, share_of(self.config, self.num_devices))
        smaller = self.config.model_copy(update={"training": settings.model_copy(update={"batch_size": windows})})
        return activation_bytes(smaller, pass_bytes(self.config), in_chunks=self.has_chunks)

    @property
    def has_chunks(self) -> bool:
        """Whether the head's loss runs in chunks, without whole logits; float16 keeps them."""
        return self.rate.is_gpu and self.config.training.dtype != "float16"

    @property
    def parallel(self) -> Parallel:
        """The way that the time is of: that of the config, else whole models if they fit, else slices."""
        if self.num_devices == 1:
            return "none"
        chosen = self.config.training.parallel
        if chosen in ("ddp", "fsdp"):
            return chosen
        limit = self.rate.memory_bytes
        return "ddp" if limit is None or self.memory_bytes("ddp") <= limit else "fsdp"

    @property
    def fits(self) -> bool:
        """Whether the memory of a device is enough, as far as it is known."""
        limit = self.rate.memory_bytes
        return limit is None or self.memory_bytes(self.parallel) <= limit

    @property
    def compute_seconds(self) -> float:
        """Seconds of the passes of an update."""
        return self.flops_per_token * self.config.tokens_per_step / (self.num_devices * self.rate.flops_per_second)

    @property
    def wire_seconds(self) -> float:
        """Seconds of the exchanges of an update; 0 if the link is unknown."""
        link = self.rate.link_bytes_per_second
        return self.wire_bytes(self.parallel) / link if link else 0.0

    @property
    def seconds(self) -> float:
        """Seconds of all updates, without evaluations and checkpoints."""
        return (self.compute_seconds + self.wire_seconds) * self.config.schedule.num_steps

    @property
    def num_microbatches(self) -> int:
        """Microbatches of a device in an update."""
        return microbatches_of_rank(self.config, self.num_devices)
