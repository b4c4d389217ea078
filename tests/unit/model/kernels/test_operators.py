"""Every kernel against PyTorch's own in float64: as near to it as PyTorch is in bfloat16."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.config import ModelConfig
from tinyllm.model.attention import AttentionKind, attend_tiled
from tinyllm.model.feed_forward import gate_by_kernel
from tinyllm.model.kernels import library
from tinyllm.model.linear import linear_by_kernel
from tinyllm.model.norm import RMSNorm
from tinyllm.model.rope import rotary_tables, rotate, rotate_by_kernel
from tinyllm.model.transformer import Transformer
from tinyllm.training.loss import sum_losses, sum_losses_by_kernel

pytestmark = pytest.mark.skipif(not library.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler")


@pytest.fixture(autouse=True)
def kernels(user_cache: Path) -> None:
    assert library.load(user_cache / "kernels", lambda line: None) == ""


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def run(function: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """What `function` gives, and the gradients of its inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient.to(output.dtype))]


def assert_as_near(ours: list[Tensor], theirs: list[Tensor], expected: list[Tensor], slack: float = 1.1) -> None:
    for our, their, right in zip(ours, theirs, expected, strict=True):
        assert our.dtype == their.dtype
        assert (our - right).norm() <= slack * (their - right).norm() + 1e-3 * right.norm()


def compare(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor) -> None:
    """`theirs` runs in bfloat16 as `ours` does, and in float64, which is the truth."""
    expected = run(theirs, [x.double() for x in inputs], gradient)
    assert_as_near(run(ours, inputs, gradient), run(theirs, inputs, gradient), expected)


@pytest.mark.parametrize(
    ("batch", "time", "num_heads", "num_kv_heads", "channels"),
    [(2, 256, 8, 4, 36), (1, 100, 4, 4, 48), (2, 33, 3, 1, 12), (1, 65, 2, 2, 128), (3, 64, 6, 2, 32), (1, 1, 2, 1, 8)],
)
def test_attention(threads: None, batch: int, time: int, num_heads: int, num_kv_heads: int, channels: int) -> None:
    torch.manual_seed(0)
    query, gradient = (torch.randn(batch, num_heads, time, channels).bfloat16() for _ in range(2))
    key, value = (torch.randn(batch, num_kv_heads, time, channels).bfloat16() for _ in range(2))
    theirs = partial(F.scaled_dot_product_attention, is_causal=True, enable_gqa=True)
    compare(attend_tiled, theirs, [query, key, value], gradient)


def test_no_position_sees_a_later_one_and_large_scores_do_no_harm() -> None:
    torch.manual_seed(0)
    query, key, value = (100 * torch.randn(1, 2, 70, 36).bfloat16() for _ in range(3))
    output = attend_tiled(query, key, value)
    assert output.isfinite().all()
    for changed in (key, value):
        changed[:, :, 40:] = 7
    after = attend_tiled(query, key, value)
    assert torch.equal(after[:, :, :40], output[:, :, :40])
    assert not torch.equal(after[:, :, 40:], output[:, :, 40:])


def test_very_low_scores_keep_gradients_finite() -> None:
    """100 queries do not fill blocks of 64: the empty places must not take part, whatever is left there."""
    ones = torch.ones(1, 2, 100, 36).bfloat16()
    leaves = [x.requires_grad_() for x in (9 * ones, -9 * ones, torch.randn(1, 2, 100, 36).bfloat16())]
    gradients = torch.autograd.grad(attend_tiled(*leaves), leaves, ones)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_numbers_that_are_none_come_through() -> None:
    """The training loop tells them; an attention that swallowed them would hide that weights are gone."""
    query, key, value = torch.ones(3, 1, 2, 40, 36).bfloat16()
    value[0, 0, 0, 0] = torch.nan
    assert attend_tiled(query, key, value)[0, 0].isnan().any()


@pytest.mark.parametrize(
    ("tokens", "num_in", "num_out"), [(300, 36, 100), (1, 8, 24), (64, 288, 144), (2, 33, 17), (600, 40, 1100)]
)
def test_linear(threads: None, tokens: int, num_in: int, num_out: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, tokens, num_in).bfloat16(), torch.randn(num_out, num_in).bfloat16()
    compare(linear_by_kernel, F.linear, [x, weight], torch.randn(1, tokens, num_out).bfloat16())


@pytest.mark.parametrize("size_of_x", [1, 1e-3], ids=["usual", "so small that eps counts"])
@pytest.mark.parametrize(("rows", "size"), [(64, 288), (5, 36), (33, 16), (1, 100)])
def test_norm(threads: None, rows: int, size: int, size_of_x: float) -> None:
    torch.manual_seed(0)
    x, gain = size_of_x * torch.randn(1, rows, size).bfloat16(), torch.rand(size).bfloat16()

    def norm(by_kernel: bool, x: Tensor, gain: Tensor) -> Tensor:
        module = RMSNorm(size, 1e-5)
        module.by_kernel = by_kernel
        return torch.func.functional_call(module, {"weight": gain}, x)

    compare(partial(norm, True), partial(norm, False), [x, gain], torch.randn(1, rows, size).bfloat16())


@pytest.mark.parametrize(("time", "channels"), [(20, 36), (3, 64), (7, 2)])
def test_rotation(time: int, channels: int) -> None:
    torch.manual_seed(0)
    tables = rotary_tables(time, channels)
    x, gradient = torch.randn(2, 2, 3, time, channels).bfloat16()
    compare(
        lambda x: rotate_by_kernel(x, *tables),
        lambda x: rotate(x, *(table.to(x.dtype) if x.dtype == torch.float64 else table for table in tables)),
        [x],
        gradient,
    )


@pytest.mark.parametrize("shape", [(2, 9, 100), (7,), (1, 768)])
def test_swiglu(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    gate, up, gradient = 5 * torch.randn(3, *shape).bfloat16()
    compare(gate_by_kernel, lambda gate, up: F.silu(gate) * up, [gate, up], gradient)


def test_swiglu_of_extreme_gates() -> None:
    gate = torch.tensor([-2e38, -1000, -100, -88, 0, 88, 1000, 3e38]).bfloat16()
    product = gate_by_kernel(gate, torch.ones_like(gate))
    assert torch.allclose(product, F.silu(gate), rtol=1e-2, atol=1e-34)


@pytest.mark.parametrize("size_of_logits", [1, 100], ids=["usual", "powers of e that are no numbers"])
@pytest.mark.parametrize(("vocab_size", "batch", "time"), [(4096, 2, 5), (100, 3, 1), (17, 1, 4)])
def test_loss(threads: None, vocab_size: int, batch: int, time: int, size_of_logits: float) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(batch, time, 24).bfloat16(), size_of_logits * torch.randn(vocab_size, 24).bfloat16()
    targets = torch.randint(vocab_size, (batch, time + 1))[:, 1:]

    def exact(hidden: Tensor, weight: Tensor) -> Tensor:
        if hidden.dtype != torch.float64:
            return sum_losses(hidden, weight, targets)
        return F.cross_entropy(F.linear(hidden, weight).flatten(0, 1), targets.flatten(), reduction="sum")

    compare(lambda *inputs: sum_losses_by_kernel(*inputs, targets), exact, [hidden, weight], torch.tensor(1 / 3))


def test_a_target_that_is_no_token_is_refused() -> None:
    hidden, weight = torch.ones(1, 1, 8).bfloat16(), torch.ones(10, 8).bfloat16()
    for target in (-1, 10):
        with pytest.raises(IndexError, match="not one of the 10 tokens"):
            sum_losses_by_kernel(hidden, weight, torch.tensor([[target]]))


def test_numbers_that_are_none_come_through_everywhere() -> None:
    x = torch.ones(1, 2, 32).bfloat16()
    x[0, 0, 3] = torch.nan
    norm = RMSNorm(32, 1e-5).bfloat16()
    norm.by_kernel = True
    assert norm(x)[0, 0].isnan().all()
    assert gate_by_kernel(x, x)[0, 0, 3].isnan()
    assert rotate_by_kernel(x[:, None], *rotary_tables(2, 32))[0, 0, 0, 3].isnan()
    assert sum_losses_by_kernel(x, torch.ones(20, 32).bfloat16(), torch.zeros(1, 2, dtype=torch.int64)).isnan()
    weight = torch.ones(20, 32).bfloat16().requires_grad_()
    linear_by_kernel(x, weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad[:, 3].isnan().all()


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_whole_model_has_the_gradients_of_pytorchs(tie_embeddings: bool) -> None:
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=97, hidden_size=48, num_layers=3, num_heads=4, num_kv_heads=2, tie_embeddings=tie_embeddings
    )
    model, tokens = Transformer(shape).train(), torch.randint(97, (3, 41))

    def gradients(dtype: torch.dtype, kind: AttentionKind, loss: Callable[..., Tensor]) -> list[Tensor]:
        copied = copy.deepcopy(model).to(dtype)
        copied.use_attention(kind)
        loss(copied.hidden_states(tokens[:, :-1]), copied.output_weight, tokens[:, 1:]).backward()  # type: ignore[no-untyped-call]
        return [p.grad for p in copied.parameters() if p.grad is not None]

    ours = gradients(torch.bfloat16, "tiled", sum_losses_by_kernel)
    theirs = gradients(torch.bfloat16, "explicit", sum_losses)
    assert len(ours) == len(list(model.parameters()))
    assert_as_near(ours, theirs, gradients(torch.float64, "fused", sum_losses), slack=1.3)
