"""Every kernel against PyTorch's own in float64: as near to it as PyTorch is in bfloat16."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.model.attention import attend_tiled
from tinyllm.model.feed_forward import gate_by_kernel
from tinyllm.model.kernels import library
from tinyllm.model.linear import linear_by_kernel
from tinyllm.model.norm import RMSNorm
from tinyllm.model.rope import rotary_tables, rotate, rotate_by_kernel
from tinyllm.training.loss import sum_losses, sum_losses_by_kernel

pytestmark = pytest.mark.skipif(not library.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler")


@pytest.fixture(autouse=True)
def kernels(user_cache: Path) -> None:
    assert library.load(user_cache / "kernels", lambda line: None) == ""


def run(function: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """What `function` gives, and the gradients of its inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient.to(output.dtype))]


def assert_as_near(ours: list[Tensor], theirs: list[Tensor], expected: list[Tensor]) -> None:
    for our, their, right in zip(ours, theirs, expected, strict=True):
        assert our.dtype == their.dtype
        assert (our - right).norm() <= 1.1 * (their - right).norm() + 1e-3 * right.norm()


def compare(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor) -> None:
    """`theirs` runs in bfloat16 as `ours` does, and in float64, which is the truth."""
    expected = run(theirs, [x.double() for x in inputs], gradient)
    assert_as_near(run(ours, inputs, gradient), run(theirs, inputs, gradient), expected)


def exact(query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Output and gradients of PyTorch's attention."""
    leaves = [x.to(dtype).requires_grad_() for x in (query, key, value)]
    output = F.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient.to(dtype))]


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize(
    ("batch", "time", "num_heads", "num_kv_heads", "channels"),
    [(2, 256, 8, 4, 36), (1, 100, 4, 4, 48), (2, 33, 3, 1, 12), (1, 65, 2, 2, 128), (3, 64, 6, 2, 32), (1, 1, 2, 1, 8)],
)
def test_it_is_as_near_to_exact_attention_as_pytorchs(
    batch: int, time: int, num_heads: int, num_kv_heads: int, channels: int, num_threads: int
) -> None:
    torch.manual_seed(0)
    query, gradient = (torch.randn(batch, num_heads, time, channels).bfloat16() for _ in range(2))
    key, value = (torch.randn(batch, num_kv_heads, time, channels).bfloat16() for _ in range(2))
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        output = attend_tiled(*leaves)
        ours = [output.detach(), *torch.autograd.grad(output, leaves, gradient)]
    finally:
        torch.set_num_threads(before)
    expected = exact(query, key, value, gradient, torch.float64)
    theirs = exact(query, key, value, gradient, torch.bfloat16)
    for our, their, right in zip(ours, theirs, expected, strict=True):
        assert our.dtype == torch.bfloat16
        assert (our - right).norm() <= 1.1 * (their - right).norm() + 1e-3 * right.norm()


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
@pytest.mark.parametrize("num_threads", [1, 3])
def test_linear(tokens: int, num_in: int, num_out: int, num_threads: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, tokens, num_in).bfloat16(), torch.randn(num_out, num_in).bfloat16()
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        compare(linear_by_kernel, F.linear, [x, weight], torch.randn(1, tokens, num_out).bfloat16())
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("rows", "size"), [(64, 288), (5, 36), (33, 16), (1, 100)])
def test_norm(rows: int, size: int) -> None:
    torch.manual_seed(0)
    x, gain, gradient = torch.randn(1, rows, size).bfloat16(), torch.rand(size).bfloat16(), torch.randn(1, rows, size)
    norm = RMSNorm(size, 1e-5)

    def ours(x: Tensor, gain: Tensor) -> Tensor:
        norm.by_kernel = True
        return torch.func.functional_call(norm, {"weight": gain}, x)

    def theirs(x: Tensor, gain: Tensor) -> Tensor:
        return gain * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5))

    compare(ours, theirs, [x, gain], gradient.bfloat16())


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
    gate = torch.tensor([-3e38, -1000, -100, -88, 0, 88, 1000, 3e38, torch.nan]).bfloat16()
    product = gate_by_kernel(gate, torch.ones_like(gate))
    assert torch.allclose(product[1:-1], F.silu(gate)[1:-1], rtol=1e-2, atol=1e-34)
    assert product[0].abs() < 4, "nearly nothing of 3e38"
    assert product[-1].isnan()


@pytest.mark.parametrize("vocab_size", [4096, 100, 17])
def test_loss(vocab_size: int) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 5, 24).bfloat16(), torch.randn(vocab_size, 24).bfloat16()
    targets = torch.randint(vocab_size, (2, 6))[:, 1:]
    compare(
        lambda hidden, weight: sum_losses_by_kernel(hidden, weight, targets),
        lambda hidden, weight: sum_losses(hidden, weight, targets),
        [hidden, weight],
        torch.tensor(1 / 3),
    )


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
    assert sum_losses_by_kernel(x, torch.ones(20, 32).bfloat16(), torch.zeros(1, 2, dtype=torch.int64)).isnan()
