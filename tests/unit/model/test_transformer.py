"""The decoder's causality, cache, precision and compilation; tests/contract has the parity with transformers."""

import pytest
import torch

from tinyllm.config import ModelConfig
from tinyllm.model.attention import AttentionKind
from tinyllm.model.kv_cache import KVCache
from tinyllm.model.transformer import Transformer

SMALL = ModelConfig(vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, context_length=24)


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, SMALL.vocab_size, (batch, length))


def test_logits_are_the_projected_hidden_states() -> None:
    model, x = Transformer(SMALL).eval(), tokens(8)
    torch.testing.assert_close(model(x), model.hidden_states(x) @ model.model.embed_tokens.weight.T)


def test_a_later_token_changes_no_earlier_logits() -> None:
    model, x = Transformer(SMALL).eval(), tokens(10)
    changed = x.clone()
    changed[:, 6] = (x[:, 6] + 1) % SMALL.vocab_size
    before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("pieces", [[24], [1] * 24, [5, 1, 1, 9, 8], [23, 1]])
def test_pieces_through_the_cache_equal_the_full_forward_pass(num_kv_heads: int, pieces: list[int]) -> None:
    config = SMALL.model_copy(update={"num_kv_heads": num_kv_heads})
    model, x = Transformer(config).eval(), tokens(24)
    cache = KVCache(config, batch_size=2)
    logits = [model(piece, cache) for piece in torch.split(x, pieces, dim=1)]
    torch.testing.assert_close(torch.cat(logits, dim=1), model(x), rtol=1e-4, atol=1e-5)
    assert cache.lengths == [24, 24]


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0, 3]], ids=["neighbours", "gathered"])
@pytest.mark.parametrize("kind", ["fused", "explicit"])
def test_rows_of_different_lengths_equal_the_full_forward_pass(rows: list[int], kind: AttentionKind) -> None:
    model, x, lengths = Transformer(SMALL), tokens(20, batch=3), [2, 9, 5]
    model.model.use_attention(kind)
    model.eval()
    cache = KVCache(SMALL, batch_size=4)
    for row, text, length in zip(rows, x, lengths, strict=True):
        model(text[None, :length], cache.select([row], [0]))
    selected = cache.select(rows, lengths)
    for count in (1, 4, 1):  # 4: several new tokens, each of which sees those before it
        following = torch.stack([text[length : length + count] for text, length in zip(x, lengths, strict=True)])
        logits = model(following, selected)
        for row, length in enumerate(lengths):
            expected = model(x[row : row + 1, : length + count])[:, length:]
            torch.testing.assert_close(logits[row : row + 1], expected, rtol=1e-4, atol=1e-5)
        lengths = [length + count for length in lengths]
        assert selected.lengths == lengths


def test_a_copied_row_continues_the_text_and_shares_nothing() -> None:
    model, x = Transformer(SMALL).eval(), tokens(8, batch=3)
    cache = KVCache(SMALL, batch_size=3)
    model(x[:1, :6], cache.select([1], [0]))
    cache.copy_row(1, [2, 0], 6)
    for row in (0, 2, 1):  # row 1, the source, comes last: the copies have appended other tokens by then
        whole = torch.cat((x[:1, :6], x[row : row + 1, 6:]), dim=1)
        logits = model(x[row : row + 1, 6:], cache.select([row], [6]))
        torch.testing.assert_close(logits, model(whole)[:, 6:], rtol=1e-4, atol=1e-5)


def test_more_tokens_than_the_context_are_refused_with_both_numbers() -> None:
    model, cache = Transformer(SMALL).eval(), KVCache(SMALL, batch_size=2)
    with pytest.raises(ValueError, match="25 tokens are more than the context of 24"):
        model(tokens(25))
    model(tokens(24), cache)
    with pytest.raises(ValueError, match="25 tokens"):
        model(tokens(1), cache)
    with pytest.raises(ValueError, match="25 tokens"):
        model(tokens(1), cache.select([0, 1], [3, 24]))
    model(tokens(1), cache.select([0, 1], [0, 0]))


def test_dropout_acts_only_in_training() -> None:
    model, x = Transformer(SMALL.model_copy(update={"dropout": 0.5})), tokens(8)
    assert not torch.allclose(model(x), model(x))
    model.eval()
    torch.testing.assert_close(model(x), model(x))


def test_dropout_reaches_attention_weights() -> None:
    """Two passes differ even without any other dropout."""
    model, x = Transformer(SMALL.model_copy(update={"dropout": 0.5})), tokens(8)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert not torch.allclose(model(x), model(x))


def test_rope_tables_stay_float32_in_a_bfloat16_model() -> None:
    model = Transformer(SMALL)
    exact = model.model.rotary.cos.clone()
    assert model.to(torch.bfloat16)(tokens(8)).dtype == torch.bfloat16
    torch.testing.assert_close(model.model.rotary.cos, exact, rtol=0, atol=0)


def test_bfloat16_weights_give_nearly_the_same_logits() -> None:
    model, x = Transformer(SMALL).eval(), tokens(24)
    exact = model(x)
    error = (model.to(torch.bfloat16)(x).float() - exact).abs().max() / exact.abs().max()
    assert error < 0.05


def test_autocast_gives_nearly_the_same_logits() -> None:
    model, x = Transformer(SMALL).eval(), tokens(24)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x)
    assert (rounded.float() - exact).abs().max() / exact.abs().max() < 0.05


def test_a_model_from_the_meta_device_gives_the_same_logits_after_loading() -> None:
    model, x = Transformer(SMALL).eval(), tokens(8)
    with torch.device("meta"):
        empty = Transformer(SMALL).eval()
    empty.to_empty(device="cpu").load_state_dict(model.state_dict())
    torch.testing.assert_close(empty(x), model(x), rtol=0, atol=0)


def test_the_state_dict_holds_only_parameters() -> None:
    model = Transformer(SMALL)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_the_forward_pass_is_one_graph() -> None:
    """torch.compile traces the forward pass without a graph break: no control flow depends on the data."""
    model, x = Transformer(SMALL).eval(), tokens(24)
    traced = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(x), model(x))
