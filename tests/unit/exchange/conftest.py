"""Fixtures: a small model with random weights and a tokenizer trained on a few lines, for formats with both."""

import numpy as np
import pytest

from tinyllm.config import ModelConfig
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.model.size import parameter_shapes
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    lines = [f"Once upon a time the {animal} saw a red ball, été 你好." for animal in ("fox", "bear", "owl", "cat")]
    return Tokenizer.from_bytes(train_model(lines * 5, 320), "tiny.model")


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> ForeignModel:
    """Rows of 64 and 48 values: the first are whole blocks of 32, the second are not."""
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=48,
        context_length=32,
        tie_embeddings=False,
    )
    numbers = np.random.default_rng(7)
    shapes = parameter_shapes(config)
    tensors = {name: numbers.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return ForeignModel(config, tensors, tokenizer, "random")


@pytest.fixture(scope="session")
def mild_model(model: ForeignModel) -> ForeignModel:
    """`model` with weights as small as a trained model's, so that rounding changes its logits little."""
    tensors = {name: tensor * np.float32(0.1) if tensor.ndim > 1 else tensor for name, tensor in model.tensors.items()}
    return ForeignModel(model.config, tensors, model.tokenizer, "random")
