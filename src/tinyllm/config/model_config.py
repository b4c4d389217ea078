"""The section of a model's shape. Automatic sizes are resolved on construction: it never holds one."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tinyllm.config.fields import LARGEST_SIZE, Automatic, Section, Unit

RopeScalingKind = Literal["none", "linear", "dynamic", "llama3"]
"""Rule that scales the rotary frequencies (see `model/rope_scaling.py`)."""


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
