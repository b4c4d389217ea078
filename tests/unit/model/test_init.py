"""Initial weights: the standard deviation of each matrix, and equal weights for equal seeds."""

import math

import pytest
import torch

from tinyllm.config import ModelConfig
from tinyllm.model.attention import Attention
from tinyllm.model.init import initial_deviation, initialize_mimetic
from tinyllm.model.transformer import Transformer

CONFIG = ModelConfig(vocab_size=256, hidden_size=128, num_layers=8, num_heads=4, tie_embeddings=False)


def test_each_matrix_has_its_deviation_and_each_gain_is_one() -> None:
    torch.manual_seed(0)
    for name, parameter in Transformer(CONFIG).named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))
            continue
        expected = 0.02 / math.sqrt(16) if "o_proj" in name or "down_proj" in name else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
        assert abs(parameter.mean().item()) < 0.1 * expected


def test_the_residual_projections_are_o_proj_and_down_proj() -> None:
    narrow = {name for name in Transformer(CONFIG).state_dict() if initial_deviation(name, 8) < 0.02}
    assert {name.split(".")[-2] for name in narrow} == {"o_proj", "down_proj"}
    assert len(narrow) == 2 * CONFIG.num_layers


def test_equal_seeds_give_equal_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.nn.utils.parameters_to_vector(Transformer(CONFIG).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_fresh_logits_are_near_uniform() -> None:
    """A fresh model's loss is ln V: the scale fits the depth."""
    torch.manual_seed(0)
    tokens = torch.randint(0, CONFIG.vocab_size, (4, 64))
    with torch.no_grad():
        logits = Transformer(CONFIG)(tokens[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(CONFIG.vocab_size), abs=0.1)


def mimetic(num_kv_heads: int) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG.model_copy(update={"num_kv_heads": num_kv_heads, "tie_embeddings": True}))
    initialize_mimetic(model, CONFIG.num_heads // num_kv_heads)
    return model


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_mimetic_heads_attend_to_equal_tokens_and_copy_them(num_kv_heads: int) -> None:
    attention = mimetic(num_kv_heads).model.layers[0].self_attn
    assert isinstance(attention, Attention)
    x = torch.randn(5, 128)
    with torch.no_grad():
        scores = attention.q_proj(x).view(5, 4, 32)[:, -1] @ attention.k_proj(x).view(5, -1, 32)[:, -1].T
        read = attention.v_proj(x).view(5, num_kv_heads, 1, 32).expand(-1, -1, 4 // num_kv_heads, -1).flatten(1)
        written = attention.o_proj(read)
    assert torch.equal(scores.argmax(1), torch.arange(5))
    # The output is x projected to the span of the value heads: x itself if they are as many as the query heads.
    overlap = torch.nn.functional.cosine_similarity(written, x)
    assert (overlap > 0.4).all()
    if num_kv_heads == 4:
        assert torch.allclose(written, x, atol=1e-5)


def test_a_fresh_mimetic_model_predicts_earlier_tokens() -> None:
    model = mimetic(4)
    tokens = torch.stack([torch.randperm(CONFIG.vocab_size) for _ in range(100)])
    said, not_said = tokens[:, :20], tokens[:, 20:40]
    with torch.no_grad():
        logits = model(said)[:, -1]
    assert logits.gather(1, said[:, :-1]).mean() > logits.gather(1, not_said).mean() + 0.2
