"""Models with random weights as readers of other formats return them, and GGUF files of them."""

from pathlib import Path

import numpy as np

from tinyllm.config import ModelConfig
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.gguf import write_gguf
from tinyllm.exchange.gguf_blocks import TensorType
from tinyllm.model.size import parameter_shapes
from tinyllm.tokenizer.codec import Tokenizer


def random_model(config: ModelConfig, tokenizer: Tokenizer | None = None, deviation: float = 1.0) -> ForeignModel:
    """A model of `config` whose weights are normal with this standard deviation; equal in every call."""
    numbers = np.random.default_rng(3)
    tensors = {
        name: numbers.standard_normal(shape, np.float32) * np.float32(deviation)
        for name, shape in parameter_shapes(config).items()
    }
    return ForeignModel(config, tensors, tokenizer, "test")


def save_gguf(path: Path, model: ForeignModel, type: TensorType = TensorType.F32, name: str = "test") -> Path:
    """Writes `model` to the GGUF file `path`; returns `path`."""
    with path.open("wb") as file:
        write_gguf(file, model, type, name)
    return path
