"""The configuration: frozen sections, each field with its meaning and unit, validated on construction.

`settings` builds a `Config` once, from four layers: defaults, a recipe, a TOML file, flags. All other modules take one
section or plain numbers; none reads globals or the environment. This module holds names, types, ranges, and the
relations between fields, and no logic of training or models.

Values are parsed before they are checked: "128" from a flag and 128 from TOML or Python are the same value.
Automatic sizes are resolved on construction: a section never holds an automatic size.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tinyllm.errors import ConfigError

WeightsKind = Literal["fp32", "bf16", "int8"]
"""Precision of the CPU engine's weights."""
RopeScalingKind = Literal["none", "linear", "dynamic", "llama3"]
"""Rule that scales the rotary frequencies (see `model/rope_scaling.py`)."""


@dataclass(frozen=True)
class Unit:
    """Metadata of a field: the unit of its value. `docs/settings.md` prints it."""

    name: str


class Section(BaseModel):
    """Base class of all sections: immutable, with a docstring per field; unknown keys are errors."""

    # Building the validators of all sections takes 0.1 s at every start; `defer_build` builds each at first use.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_wrong_types(cls, value: object, info: ValidationInfo) -> object:
        """`value`. Raises ValueError for a boolean in place of a number, and for text that UTF-8 cannot encode."""
        assert info.field_name is not None
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation in (int, float):
            raise ValueError(f"it is {str(value).lower()}; it should be a number")
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("it is not valid UTF-8, so no file could keep it") from None
        return value


def _parse_automatic(value: object) -> object:
    """0 for None and "auto"; any other value unchanged."""
    return 0 if value is None or (isinstance(value, str) and value.strip().lower() == "auto") else value


Automatic = Annotated[int, BeforeValidator(_parse_automatic), Field(ge=0)]
"""An integer; 0, "auto" and None mean that it is chosen automatically."""
LARGEST_SIZE = 2**40
"""Larger than any size of a model. Memory is the real limit; this one keeps numbers printable."""
SHOWN_CHARACTERS = 60


def wrong_setting(error: ValidationError, known: Iterable[str] = ()) -> ConfigError:
    """The error for the first problem of a section, in one line: the field, its value, and the allowed values.

    For an unknown field it names the nearest of `known`. Its parameter is the field, such as `top_p`, `training.seed`
    or `stop[0]`, if the line begins with one.
    """
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    if not name:
        return ConfigError(reason)
    match first["type"]:
        case "extra_forbidden":
            nearest = difflib.get_close_matches(name, list(known), n=1)
            return ConfigError(f"there is no setting {name}", hint=f"did you mean {nearest[0]}?" if nearest else "")
        case "value_error":
            return ConfigError(f"{name}: {reason}", parameter=name)
        case "missing":
            return ConfigError(f"{name} is missing", parameter=name)
    reason = reason.replace("Input should", "it should")
    return ConfigError(f"{name} is {_shorten(first['input'])}; {reason}", parameter=name)


def _shorten(value: object) -> str:
    """`value` on one line, cut to `SHOWN_CHARACTERS`."""
    text = str(value)
    text = text if text and text.isprintable() else repr(text)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


class ModelConfig(Section):
    """Shape of a Llama model (Touvron et al. 2023), with the options of its Hugging Face configuration."""

    vocab_size: Annotated[int, Unit("tokens")] = Field(gt=0, le=LARGEST_SIZE)
    """Number of token ids; the tokenizer must have as many."""
    hidden_size: Annotated[int, Unit("channels")] = Field(default=288, gt=0, le=LARGEST_SIZE)
    """Channels of the residual stream."""
    num_layers: Annotated[int, Unit("layers")] = Field(default=8, gt=0, le=LARGEST_SIZE)
    """Transformer blocks."""
    num_heads: Annotated[int, Unit("heads")] = Field(default=8, gt=0, le=LARGEST_SIZE)
    """Query heads of each attention."""
    num_kv_heads: Annotated[Automatic, Unit("heads")] = Field(default=0, le=LARGEST_SIZE, validate_default=True)
    """Key and value heads, shared by groups of query heads; 0 or auto = as many as query heads."""
    head_size: Annotated[Automatic, Unit("channels")] = Field(default=0, le=LARGEST_SIZE, validate_default=True)
    """Channels of one head, an even number; 0 or auto = hidden_size / num_heads."""
    multiple_of: Annotated[int, Unit("channels")] = Field(default=32, gt=0, le=LARGEST_SIZE)
    """The automatic `intermediate_size` is a multiple of this."""
    intermediate_size: Annotated[Automatic, Unit("channels")] = Field(default=0, le=LARGEST_SIZE, validate_default=True)
    """Channels inside the feed-forward; 0 or auto = 8/3 x hidden_size, rounded up to `multiple_of`."""
    context_length: Annotated[int, Unit("tokens")] = Field(default=256, gt=0, le=LARGEST_SIZE)
    """Longest sequence that the model attends over, in tokens."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in RMSNorm."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies."""
    rope_scaling: RopeScalingKind = "none"
    """Rule that scales the rotary frequencies: linear, dynamic (plain up to context_length), or that of Llama 3."""
    rope_factor: float = Field(default=1.0, gt=0)
    """Divisor of the scaled rotary frequencies; without effect if rope_scaling is none."""
    rope_low_freq_factor: float = Field(default=1.0, gt=0)
    """For llama3: frequencies with fewer rotations than this in rope_original_context are divided."""
    rope_high_freq_factor: float = Field(default=4.0, gt=0)
    """For llama3: frequencies with more rotations than this in rope_original_context stay as they are."""
    rope_original_context: Annotated[Automatic, Unit("tokens")] = Field(
        default=0, le=LARGEST_SIZE, validate_default=True
    )
    """For llama3: the context of the training before the scaling; 0 or auto = context_length."""
    attention_bias: bool = False
    """Whether the four projections of attention have biases."""
    mlp_bias: bool = False
    """Whether the three projections of the feed-forward have biases."""
    tie_embeddings: bool = True
    """Whether the output projection is the token embedding."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation in training."""

    @field_validator("num_kv_heads")
    @classmethod
    def _resolve_num_kv_heads(cls, value: int, info: ValidationInfo) -> int:
        """`value`, or num_heads if it is automatic. `info.data` lacks fields that failed to parse."""
        automatic: int = info.data.get("num_heads", value)
        return value or automatic

    @field_validator("head_size")
    @classmethod
    def _resolve_head_size(cls, value: int, info: ValidationInfo) -> int:
        """`value`, or hidden_size / num_heads if it is automatic."""
        if value or not {"hidden_size", "num_heads"} <= info.data.keys():
            return value
        automatic: int = info.data["hidden_size"] // info.data["num_heads"]
        return automatic

    @field_validator("rope_original_context")
    @classmethod
    def _resolve_rope_original_context(cls, value: int, info: ValidationInfo) -> int:
        """`value`, or context_length if it is automatic."""
        automatic: int = info.data.get("context_length", value)
        return value or automatic

    @field_validator("intermediate_size")
    @classmethod
    def _resolve_intermediate_size(cls, value: int, info: ValidationInfo) -> int:
        """`value`, or the width of Llama's feed-forward if it is automatic."""
        if value or not {"hidden_size", "multiple_of"} <= info.data.keys():
            return value
        hidden: int = info.data["hidden_size"]
        multiple: int = info.data["multiple_of"]
        return -(-(8 * hidden // 3) // multiple) * multiple

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for name in ("num_kv_heads", "intermediate_size"):
            assert getattr(self, name) > 0, f"{name} is resolved from positive fields"
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}; "
                "every head needs the same number of channels"
            )
        if self.head_size % 2:
            shape = f"hidden_size {self.hidden_size} with num_heads {self.num_heads}"
            cause = shape if self.has_plain_heads else "head_size"
            raise ValueError(f"{cause} is {self.head_size} channels a head; rotary embedding needs an even number")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not divisible by num_kv_heads {self.num_kv_heads}; "
                "every key/value head serves the same number of query heads"
            )
        if self.rope_scaling == "llama3" and self.rope_high_freq_factor <= self.rope_low_freq_factor:
            raise ValueError(
                f"rope_high_freq_factor {self.rope_high_freq_factor} is not above rope_low_freq_factor "
                f"{self.rope_low_freq_factor}; frequencies between the two are mixed"
            )
        return self

    @property
    def attention_size(self) -> int:
        """Channels of all query heads: the inputs of the output projection."""
        return self.num_heads * self.head_size

    @property
    def has_plain_heads(self) -> bool:
        """Whether the query heads together are as wide as the residual stream."""
        return self.attention_size == self.hidden_size


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
