"""Arithmetic on the config against the module and against torch's FLOP counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tinyllm.config import ModelConfig
from tinyllm.model import size
from tinyllm.model.kv_cache import KVCache
from tinyllm.model.transformer import Transformer

CONFIGS = [
    ModelConfig(vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, context_length=16),
    ModelConfig(vocab_size=50, hidden_size=24, num_layers=3, num_heads=2, context_length=8, tie_embeddings=False),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_shapes_equal_the_state_dict_in_its_order(config: ModelConfig) -> None:
    state = {name: tuple(tensor.shape) for name, tensor in Transformer(config).state_dict().items()}
    assert size.parameter_shapes(config) == state


@pytest.mark.parametrize("config", CONFIGS)
def test_counts_and_bytes_equal_the_module(config: ModelConfig) -> None:
    model, cache = Transformer(config), KVCache(config)
    assert size.num_parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    assert size.weight_bytes(config) == sum(parameter.nbytes for parameter in model.parameters())
    assert size.cache_bytes(config) == cache.keys.nbytes + cache.values.nbytes


@pytest.mark.parametrize("config", CONFIGS)
def test_forward_flops_equal_the_counter_of_torch(config: ModelConfig) -> None:
    model, tokens = Transformer(config), torch.zeros(1, config.context_length, dtype=torch.int64)
    # The counter knows the two products of plain attention, not the CPU's fused kernel.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens)
    assert size.forward_flops_per_token(config) * config.context_length == counter.get_total_flops()
    assert size.training_flops_per_token(config) == 3 * size.forward_flops_per_token(config)


def test_the_published_size_of_stories15m() -> None:
    """stories15M.bin of llama2.c: a header, float32 weights, and two tables of 256 positions x 24 rotary channels."""
    config = ModelConfig(vocab_size=32_000, hidden_size=288, num_layers=6, num_heads=6)
    assert config.intermediate_size == 768
    assert 28 + size.weight_bytes(config) + 2 * 4 * 256 * 24 == 60_816_028
