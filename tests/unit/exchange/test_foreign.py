"""Tests strict matching: every difference is named."""

from pathlib import Path

import numpy as np
import pytest

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError
from tinyllm.exchange.foreign import Tensors, check_tensors, make_config
from tinyllm.model.size import parameter_shapes

CONFIG = ModelConfig(vocab_size=32, hidden_size=16, num_layers=2, num_heads=2)
FILE = Path("some.bin")


def whole() -> Tensors:
    return {name: np.zeros(shape, dtype=np.float32) for name, shape in parameter_shapes(CONFIG).items()}


def test_a_complete_model_is_accepted() -> None:
    check_tensors(CONFIG, whole(), FILE)


def test_differences_are_listed_by_kind() -> None:
    tensors = whole()
    del tensors["model.norm.weight"]
    tensors["lm_head.bias"] = np.zeros(32, dtype=np.float32)
    tensors["model.embed_tokens.weight"] = np.zeros((31, 16), dtype=np.float32)
    with pytest.raises(FormatError) as caught:
        check_tensors(CONFIG, tensors, FILE)
    for part in ("missing: model.norm.weight", "unexpected: lm_head.bias", "is [31, 16], expected [32, 16]"):
        assert part in str(caught.value)


def test_names_from_a_file_stay_on_one_line() -> None:
    tensors = whole() | {"a\nb" + 100 * "c": np.zeros(1, dtype=np.float32)}
    with pytest.raises(FormatError, match=r"unexpected: 'a\\nbccc") as caught:
        check_tensors(CONFIG, tensors, FILE)
    assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_refused() -> None:
    tensors = whole()
    tensors["model.norm.weight"][3] = np.nan
    with pytest.raises(FormatError, match=r"model.norm.weight has 1 of 16 values"):
        check_tensors(CONFIG, tensors, FILE)


def test_more_layers_than_tensors_are_refused_before_they_are_listed() -> None:
    with pytest.raises(FormatError, match="num_layers is 2147483647"):
        check_tensors(CONFIG.model_copy(update={"num_layers": 2**31 - 1}), whole(), FILE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": -8}, "hidden_size is -8"),
        ({"hidden_size": 48, "num_heads": 5}, "hidden_size 48 is not divisible by num_heads 5"),
        ({"context_length": 2**30}, "context_length is 1073741824, expected at most 131072"),
    ],
)
def test_an_impossible_config_is_refused_with_file_and_field(values: dict[str, int], message: str) -> None:
    with pytest.raises(FormatError, match=f"some.bin: {message}"):
        make_config(FILE, vocab_size=32, **values)
