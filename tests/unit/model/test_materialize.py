"""A module built from stored tensors equals the module that they came from."""

import numpy as np
import pytest
import torch

from tinyllm.config import ModelConfig
from tinyllm.model.materialize import as_tensor, materialize
from tinyllm.model.transformer import Transformer

CONFIG = ModelConfig(vocab_size=19, hidden_size=16, num_layers=2, num_heads=2, context_length=8)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_parameters_tables_and_logits_are_those_of_the_source(dtype: torch.dtype | None) -> None:
    source = Transformer(CONFIG).eval()
    tensors = {name: parameter.detach().numpy() for name, parameter in source.named_parameters()}
    built = materialize(lambda: Transformer(CONFIG), tensors, dtype=dtype)
    assert not built.training
    assert {parameter.dtype for parameter in built.parameters()} == {dtype or torch.float32}
    tokens = torch.arange(8)[None]
    with torch.inference_mode():
        torch.testing.assert_close(built(tokens), source.to(dtype)(tokens), rtol=0, atol=0)


def test_a_missing_parameter_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"model.embed_tokens.weight"):
        materialize(lambda: Transformer(CONFIG), {})


def test_an_array_that_must_not_change_is_copied() -> None:
    array = np.arange(3.0)
    shared = as_tensor(array)
    array[0] = 7
    assert shared[0] == 7
    array.setflags(write=False)
    copy = as_tensor(array)
    copy[1] = 9
    assert array[1] == 1
