"""The configuration: frozen sections, each field with its meaning and unit, validated on construction.

`layers` builds a `Config` once, from four layers: defaults, a recipe, a TOML file, flags. All other modules take one
section or plain numbers; none reads globals or the environment. This module holds names, types, ranges, and the
relations between fields, and no logic of training or models. The shape of a model is in `model_config`.
"""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tinyllm.config.fields import LARGEST_SIZE, Automatic, Section, Unit
from tinyllm.config.model_config import ModelConfig

WeightsKind = Literal["fp32", "bf16", "int8"]
"""Precision of the CPU engine's weights."""


class ScheduleConfig(Section):
    """Learning rate over the run."""

    num_steps: Annotated[int, Unit("steps")] = Field(default=2000, gt=0)
    """Optimizer updates of the whole run."""
    peak: float = Field(default=5e-4, gt=0)
    """Learning rate at the end of warmup."""
    floor: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the run."""
    warmup_steps: Annotated[int, Unit("steps")] = Field(default=100, ge=0)
    """Updates over which the rate rises linearly from 0 to the peak; num_steps / 10 if num_steps is not larger."""
    shape: Literal["cosine", "wsd"] = "cosine"
    """Decay after warmup: cosine, or warmup-stable-decay (flat, then linear)."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """For wsd: the fraction of the steps after warmup in which the rate falls, at the end of the run."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.floor > self.peak:
            raise ValueError(f"floor {self.floor} is above peak {self.peak}; the rate decays from peak to floor")
        return self


class OptimizerConfig(Section):
    """The optimizer and gradient clipping."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw (Loshchilov & Hutter 2019) for all parameters, or muon (Jordan et al. 2024) for the hidden matrices."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the mean of gradients in Muon; embeddings and gains use AdamW's fields below."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the mean square."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of matrices; norm gains have none."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest global norm of the gradient; 0 = no clipping."""


class TrainingConfig(Section):
    """Batches, evaluation, checkpoints and the machine."""

    batch_size: Annotated[int, Unit("windows")] = Field(default=8, gt=0, le=LARGEST_SIZE)
    """Windows in one microbatch."""
    accumulation_steps: Annotated[int, Unit("microbatches")] = Field(default=4, gt=0, le=LARGEST_SIZE)
    """Microbatches in one optimizer update."""
    sequence_length: Annotated[int, Unit("tokens")] = Field(default=256, gt=0, le=LARGEST_SIZE)
    """Tokens a window predicts; at most the model's context_length."""
    align_documents: bool = False
    """Whether windows begin at document starts instead of every sequence_length tokens."""
    eval_interval: Annotated[int, Unit("steps")] = Field(default=100, gt=0)
    """Steps between evaluations on the validation set."""
    eval_batches: Annotated[int, Unit("microbatches")] = Field(default=100, gt=0, le=LARGEST_SIZE)
    """Microbatches in one evaluation, the same windows each time."""
    patience: Annotated[int, Unit("evaluations")] = Field(default=0, ge=0)
    """Evaluations in a row without a lower validation loss after which the run ends early; 0 = never."""
    eval_only: bool = False
    """Evaluate once and stop."""
    always_save_checkpoint: bool = False
    """Save a checkpoint and RUN/model after each evaluation, even if the loss did not improve."""
    init_from: str = "scratch"
    """Source of the weights: scratch, resume (this run's newest checkpoint), or a model, which gives the shape too."""
    initialization: Literal["normal", "mimetic"] = "normal"
    """Initial weights: GPT-2's normal ones, or attention that copies earlier tokens (see `model/init.py`)."""
    checkpoint_interval: Annotated[int, Unit("steps")] = Field(default=1000, gt=0)
    """Steps between checkpoints; the last step always writes one."""
    keep_checkpoints: Annotated[int, Unit("checkpoints")] = Field(default=2, gt=0)
    """Number of newest checkpoints to keep; older ones are removed."""
    log_interval: Annotated[int, Unit("steps")] = Field(default=10, gt=0)
    """Steps between lines of output if stderr is no terminal; metrics.jsonl has every step."""
    max_minutes: Annotated[float, Unit("minutes")] = Field(default=0.0, ge=0)
    """Wall time after which the run saves and stops, in minutes; 0 = no limit."""
    max_bad_steps: Annotated[int, Unit("steps")] = Field(default=10, gt=0)
    """Updates in a row with a non-finite loss or gradient after which the run stops."""
    seed: int = Field(default=1337, ge=0, lt=2**63)
    """Seeds the initial weights, dropout and the order of the data."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or a torch device such as cpu or cuda:0."""
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """Ranks (torchrun): ddp = each has the whole model and a share of the windows, fsdp = a slice of it; auto = ddp.

    `none` refuses several ranks. One process trains alone with any of them.
    """
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the forward and backward pass; weights and optimizer stay float32. auto = the fastest measured."""
    attention: Literal["auto", "fused", "explicit", "tiled"] = "auto"
    """PyTorch's fused kernel, plain products and softmax, or kernels for this processor; auto = the fastest measured.

    `tiled` enables every custom kernel; it needs a CPU with AMX, bfloat16, and a model without dropout.
    """
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch.compile compiles the training step; auto = if the run is long enough to save time.

    It has no effect with attention `tiled`; `on` with attention `auto` excludes the custom kernels.
    """
    tensorboard: bool = False
    """Whether metrics are also written to RUN/tensorboard (needs the extra `track`)."""
    num_threads: Annotated[Automatic, Unit("threads")] = Field(default=0, le=1024)
    """CPU threads; 0 or auto = torch's choice. Thousands of threads crash the thread library, hence the limit."""


def _parse_stops(value: object) -> object:
    """A tuple of one text for a text; any other value unchanged."""
    return (value,) if isinstance(value, str) else value


def _check_stop(text: str) -> str:
    if not text:
        raise ValueError("a stop string is empty; give at least one character")
    return text


def _parse_biases(value: object) -> object:
    """Pairs for a map, and for texts of a command line such as `262 -100 13 5`; any other value unchanged."""
    if isinstance(value, Mapping):
        return tuple(value.items())
    if isinstance(value, tuple | list) and value and all(isinstance(item, str) for item in value):
        return tuple(zip_longest(value[::2], value[1::2]))
    return value


def _check_biases(pairs: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    ids = [token for token, _ in pairs]
    if len(set(ids)) < len(ids):
        raise ValueError(f"token {next(token for token in ids if ids.count(token) > 1)} occurs twice")
    return pairs


TokenBias = tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100)]]
"""A token id, and the number to add to its logit."""


class SamplingConfig(Section):
    """Rules for drawing the next token and for ending a text."""

    max_new_tokens: Annotated[int, Unit("tokens")] = Field(default=256, gt=0)
    """Largest number of tokens to generate."""
    temperature: float = Field(default=1.0, ge=0)
    """Divides the logits; 0 = always the most likely token."""
    top_k: Annotated[int, Unit("tokens")] = Field(default=0, ge=0)
    """Keep only the k most likely tokens; 0 = all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the smallest set of tokens whose probabilities sum to p (Holtzman et al. 2020)."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Keep tokens whose probability is at least min_p x the largest one (Nguyen et al. 2024)."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Divides positive and multiplies negative logits of tokens that occurred (Keskar et al. 2019); 1 = off."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtracted from the logit of each token that was generated, as OpenAI defines it; the prompt does not count."""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtracted from a token's logit once for each time that it was generated, as OpenAI defines it."""
    logit_bias: Annotated[tuple[TokenBias, ...], BeforeValidator(_parse_biases), AfterValidator(_check_biases)] = ()
    """Added to the logits of token ids, as pairs or as a map: -100 bans a token, 100 all but forces it."""
    seed: int = Field(default=1337, ge=0, lt=2**63)
    """Seed of the random draws: the same seed gives the same text, alone or in a batch."""
    stop: Annotated[tuple[Annotated[str, AfterValidator(_check_stop)], ...], BeforeValidator(_parse_stops)] = ()
    """Texts that end the generation; they are cut off. One string is one text."""


class TrainingSamplesConfig(Section):
    """The samples that training writes at each evaluation."""

    prompt: str = "Once upon a time"
    """Fixed beginning of each sample."""
    num_samples: Annotated[int, Unit("samples")] = Field(default=1, ge=0)
    """Samples at each evaluation; 0 = none."""
    max_new_tokens: Annotated[int, Unit("tokens")] = Field(default=100, gt=0)
    """Largest number of tokens of a sample."""
    temperature: float = Field(default=0.8, ge=0)
    """Divides the logits; 0 = always the most likely token."""


class FinetuneConfig(Section):
    """Settings of training a classifier. Names and defaults are the course's."""

    epochs: Annotated[int, Unit("epochs")] = Field(default=10, gt=0)
    """Passes over the training sentences."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Constant over the training. Small models need a higher one: 1e-3 for 260 K parameters."""
    batch_size: Annotated[int, Unit("sentences")] = Field(default=8, gt=0)
    """Sentences in one update."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Probability of dropping a channel of the state that the head reads."""
    seed: int = Field(default=1337, ge=0, lt=2**63)
    """Seeds the head, dropout and the order of sentences."""


class Config(Section):
    """All settings of a training run."""

    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    sample: TrainingSamplesConfig = TrainingSamplesConfig()

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens that one optimizer update predicts."""
        return self.training.batch_size * self.training.accumulation_steps * self.training.sequence_length

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.training.sequence_length > self.model.context_length:
            raise ValueError(
                f"training.sequence_length {self.training.sequence_length} is longer than "
                f"model.context_length {self.model.context_length}; raise the one or lower the other"
            )
        return self
