"""Texts by a model in training, for its log. The caller of `training.build_trainer` passes this function."""

from tinyllm.config import TrainingSamplesConfig
from tinyllm.generation.engines.torch_engine import TorchEngine
from tinyllm.generation.generator import Generator
from tinyllm.model.transformer import Transformer
from tinyllm.tokenizer.codec import Tokenizer


def sample_texts(model: Transformer, tokenizer: Tokenizer, config: TrainingSamplesConfig) -> list[str]:
    """`config.num_samples` continuations of `config.prompt`; raises ResourceError if they do not fit into memory."""
    generator = Generator(TorchEngine(model), tokenizer, model.config)
    limit = min(config.max_new_tokens, model.config.context_length)
    results = generator.generate(
        config.prompt,
        num_samples=config.num_samples,
        max_new_tokens=limit,
        temperature=config.temperature,
    )
    return [result.text for result in results]
