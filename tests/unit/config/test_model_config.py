"""The shape of a model against the sizes of llama2.c, and an error with numbers for each contradiction."""

import pytest
from pydantic import ValidationError

from tinyllm.config import ModelConfig


@pytest.mark.parametrize(
    ("hidden", "multiple_of", "expected"),
    [(288, 32, 768), (512, 32, 1376), (768, 32, 2048), (64, 4, 172), (4096, 256, 11008)],
)
def test_intermediate_size_equals_llama2c(hidden: int, multiple_of: int, expected: int) -> None:
    """The sizes in the checkpoints of stories15M, 42M, 110M, 260K and Llama 2 7B."""
    assert ModelConfig(vocab_size=32000, hidden_size=hidden, multiple_of=multiple_of).intermediate_size == expected


def test_automatic_sizes_are_resolved_once() -> None:
    config = ModelConfig(vocab_size=8, hidden_size=16, num_heads=4)
    assert config.num_kv_heads == 4
    assert ModelConfig(**config.model_dump()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 100, "num_heads": 8}, "hidden_size 100 is not divisible by num_heads 8"),
        ({"hidden_size": 24, "num_heads": 8}, "is 3 channels a head"),
        ({"head_size": 13}, "head_size is 13 channels a head"),
        ({"rope_factor": 0.0}, "greater than 0"),
        ({"rope_scaling": "yarn"}, "'none', 'linear', 'dynamic' or 'llama3'"),
        ({"rope_scaling": "llama3", "rope_low_freq_factor": 4.0}, "rope_high_freq_factor 4.0 is not above"),
        ({"num_heads": 8, "num_kv_heads": 3}, "num_heads 8 is not divisible by num_kv_heads 3"),
        ({"dropout": 1.0}, "less than 1"),
        ({"num_layer": 3}, "Extra inputs"),
    ],
)
def test_contradictions_are_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig(vocab_size=8, **settings)  # type: ignore[arg-type]
