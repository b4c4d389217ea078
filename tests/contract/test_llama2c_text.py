"""The text that llama2.c itself prints for its trained 260 K model, to the letter."""

import struct

import numpy as np
import pytest
import torch

from reference_data import STORIES_260K, greedy_text
from tinyllm.config import ModelConfig
from tinyllm.generation.engines.torch_engine import TorchEngine
from tinyllm.generation.generator import Generator
from tinyllm.model.transformer import Transformer
from tinyllm.tokenizer.codec import Tokenizer


@pytest.fixture(scope="module")
def stories() -> Generator:
    """stories260K.bin, read as llama2.c's export.py writes it."""
    content = (STORIES_260K / "stories260K.bin").read_bytes()
    hidden, inner, layers, heads, kv_heads, vocabulary, context = struct.unpack("7i", content[:28])
    numbers = torch.from_numpy(np.frombuffer(content, np.float32, offset=28).copy())
    config = ModelConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        context_length=context,
    )
    keys = kv_heads * config.head_size
    parts = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "mlp.up_proj": (inner, hidden),
    }
    model = Transformer(config)
    state, start = model.state_dict(), vocabulary * hidden
    state["model.embed_tokens.weight"].copy_(numbers[:start].view(vocabulary, hidden))
    for name, shape in parts.items():
        for layer in range(layers):
            end = start + int(np.prod(shape))
            weight = numbers[start:end].view(shape)
            if name.endswith(("q_proj", "k_proj")):
                # llama2.c rotates channels 2i and 2i + 1 together, tinyllm i and i + D/2
                weight = weight.view(-1, config.head_size // 2, 2, hidden).transpose(1, 2).reshape(shape)
            state[f"model.layers.{layer}.{name}.weight"].copy_(weight)
            start = end
    state["model.norm.weight"].copy_(numbers[start : start + hidden])
    tokenizer = Tokenizer.load(STORIES_260K / "tok512.model")
    return Generator(TorchEngine(model), tokenizer, config)


def test_greedy_text_is_that_of_llama2c(stories: Generator) -> None:
    assert stories.generate("", temperature=0, max_new_tokens=200)[0].text == greedy_text()


def test_a_prompt_continues_as_llama2c_continues_it(stories: Generator) -> None:
    """A greedy text that is cut between two tokens continues with the rest of it."""
    prompt = "Once upon a time, there was a little girl named Lily."
    assert greedy_text().startswith(prompt + stories.generate(prompt, temperature=0, max_new_tokens=150)[0].text)


def test_a_stream_is_the_same_text_in_whole_words_pieces(stories: Generator) -> None:
    pieces = list(stories.stream("", temperature=0, max_new_tokens=200))
    assert "".join(pieces) == greedy_text()
    assert len(pieces) > 150


def test_stories_end_by_themselves(stories: Generator) -> None:
    """llama2.c's training data have BOS between stories: the model ends a story by sampling it."""
    ended = stories.generate("", num_samples=4, temperature=0.5, max_new_tokens=400)
    reasons = {generation.finish_reason for generation in ended}
    assert "end" in reasons
    for generation in ended:
        if generation.finish_reason == "end":
            assert generation.token_ids[-1] in (stories.tokenizer.bos_id, stories.tokenizer.eos_id)
