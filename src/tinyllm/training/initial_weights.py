"""Copies the weights of the model that `training.init_from` names into a new run's model.

Fields that decide the shape or the meaning of a tensor must be equal. Nothing here trains or saves.
"""

from collections.abc import Callable
from pathlib import Path

from tinyllm.errors import UsageError
from tinyllm.model.transformer import Transformer
from tinyllm.tokenizer.codec import Tokenizer

Source = Callable[[Path], tuple[Transformer, Tokenizer]]
"""Reads the model at a path, with its tokenizer."""

MUST_BE_EQUAL = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "intermediate_size",
    "tie_embeddings",
    "head_size",
    "norm_eps",
    "rope_theta",
    "rope_scaling",
    "attention_bias",
    "mlp_bias",
)
"""Fields of `ModelConfig` that decide shapes or meaning of weights; context length, dropout, `multiple_of` do not."""
SCALING = ("rope_factor", "rope_low_freq_factor", "rope_high_freq_factor", "rope_original_context")
"""Fields that decide the meaning of weights if the rotary frequencies are scaled."""


def copy_weights(model: Transformer, tokenizer: Tokenizer, path: Path, read_source: Source) -> None:
    """Copies the weights of the model at `path` into `model`.

    Raises UsageError naming every difference in shape or tokenizer, and the errors of `read_source`.
    """
    source, their_tokenizer = read_source(path)
    decisive = MUST_BE_EQUAL if source.config.rope_scaling == "none" else (*MUST_BE_EQUAL, *SCALING)
    differing = [name for name in decisive if getattr(source.config, name) != getattr(model.config, name)]
    problems = [
        f"model.{name} is {getattr(source.config, name)} there and {getattr(model.config, name)} here"
        for name in differing
    ]
    if their_tokenizer.fingerprint != tokenizer.fingerprint and "vocab_size" not in differing:
        problems.append("its tokenizer and that of the shards have the same number of tokens, but different ones")
    if problems:
        raise UsageError(f"cannot start from {path}: {'; '.join(problems)}; make them equal, or name another model")
    model.load_state_dict(source.state_dict())
