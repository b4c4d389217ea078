"""Both implementations of attention against the definition, computed for each head and position."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tinyllm.config import ModelConfig
from tinyllm.model.attention import ATTENTION, QUERY_BLOCK
from tinyllm.model.transformer import Transformer


@pytest.mark.parametrize("kind", ["fused", "explicit"])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("num_new", "num_all"), [(7, 7), (1, 7), (3, 7), (1, 1)])
def test_attention_is_softmax_of_scores_over_the_past(kind: str, num_kv_heads: int, num_new: int, num_all: int) -> None:
    query = torch.randn(2, 4, num_new, 6)
    key, value = torch.randn(2, 2, num_kv_heads, num_all, 6)
    expected = torch.empty_like(query)
    for head in range(4):
        shared = head // (4 // num_kv_heads)
        for t in range(num_new):
            past = num_all - num_new + t + 1
            scores = torch.einsum("bd,bsd->bs", query[:, head, t], key[:, shared, :past]) / math.sqrt(6)
            expected[:, head, t] = torch.einsum("bs,bsd->bd", scores.softmax(-1), value[:, shared, :past])
    torch.testing.assert_close(ATTENTION[kind](query, key, value), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("num_new", "num_all"), [(2 * QUERY_BLOCK + 7, 2 * QUERY_BLOCK + 7), (QUERY_BLOCK + 3, 300)])
def test_blocks_of_queries_match_the_fused_kernel(num_new: int, num_all: int) -> None:
    query = torch.randn(2, 4, num_new, 6, requires_grad=True)
    key, value = (torch.randn(2, 2, num_all, 6, requires_grad=True) for _ in range(2))
    results = [ATTENTION[kind](query, key, value) for kind in ("fused", "explicit")]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(result.square().sum(), (query, key, value)) for result in results]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_dropped_weights_get_no_gradient_and_the_others_their_full_gradient() -> None:
    query, key, value = (torch.randn(1, 1, 9, 6, requires_grad=True) for _ in range(3))
    torch.manual_seed(0)
    ours = ATTENTION["explicit"](query, key, value, 0.5)
    torch.manual_seed(0)
    kept = F.dropout(torch.ones(1, 9, 9), 0.5)
    past = torch.ones(9, 9).tril().bool()
    scores = (query @ key.transpose(2, 3) / math.sqrt(6)).masked_fill(~past, -math.inf)
    theirs = (scores.softmax(-1) * kept) @ value
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(result.square().sum(), (query, key, value)) for result in (ours, theirs)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_both_attentions_give_equal_logits_and_both_apply_dropout() -> None:
    config = ModelConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, dropout=0.5)
    model = Transformer(config).eval()
    tokens = torch.randint(64, (2, 20))
    with torch.no_grad():
        fused = model(tokens)
        model.model.use_attention("explicit")
        torch.testing.assert_close(model(tokens), fused, rtol=1e-4, atol=1e-5)
    ones = torch.ones(1, 1, 400, 2)
    for kind in ("fused", "explicit"):
        dropped = ATTENTION[kind](ones, ones, ones, 0.5)[0, 0, 100:]
        assert dropped.mean() == pytest.approx(1, abs=0.05), "weights that are not dropped must be scaled up"
        assert dropped.std() > 0.01


GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), pytest.param("cuda", torch.bfloat16, marks=GPU)])
@pytest.mark.parametrize("num_kv_heads", [2, 4])
def test_training_runs_on_the_flash_kernel(device: str, dtype: torch.dtype, num_kv_heads: int) -> None:
    """`sdpa_kernel` allows no other kernel, and PyTorch raises for arguments that flash attention does not take."""
    query, key, value = (
        torch.randn(2, heads, 32, 16, device=device, dtype=dtype, requires_grad=True)
        for heads in (4, num_kv_heads, num_kv_heads)
    )
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        flash = ATTENTION["fused"](query, key, value)
    with sdpa_kernel(SDPBackend.MATH):
        plain = ATTENTION["fused"](query, key, value)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(flash, plain, rtol=tolerance, atol=tolerance)
    flash.sum().backward()  # type: ignore[no-untyped-call]
    assert query.grad is not None
    assert query.grad.isfinite().all()
