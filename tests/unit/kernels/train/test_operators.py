"""Every kernel against PyTorch's own in float64: as near to it as PyTorch is in bfloat16."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.kernels.train import library, operators
from tinyllm.model.norm import RMSNorm
from tinyllm.model.rope import rotary_tables, rotate

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


def assert_as_near(
    ours: list[Tensor], theirs: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor, slack: float = 1.1
) -> None:
    """`ours` are a result and the gradients of `inputs`; `theirs` makes them in bfloat16, and in float64 the truth."""
    known, truth = (differentiate(theirs, inputs, gradient, dtype) for dtype in (torch.bfloat16, torch.float64))
    for our, their, right in zip(ours, known, truth, strict=True):
        assert (our - right).norm() <= slack * (their - right).norm() + 1e-3 * right.norm()


def differentiate(
    function: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """What `function` gives, and the gradients of its inputs."""
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient.to(output.dtype))]


def attend(x: Tensor, num_heads: int) -> Tensor:
    """PyTorch's own attention of what our kernel takes."""
    num_kv_heads = (x.shape[2] - num_heads) // 2
    query, key, value = x.transpose(1, 2).split([num_heads, num_kv_heads, num_kv_heads], dim=1)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    tables = [table.to(wide) for table in rotary_tables(x.shape[1], x.shape[3])]
    query, key = rotate(query, *tables), rotate(key, *tables)
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize(
    ("batch", "time", "num_heads", "num_kv_heads", "channels"),
    [(2, 256, 8, 4, 36), (1, 100, 4, 4, 48), (2, 33, 3, 1, 12), (1, 65, 2, 2, 128), (3, 64, 6, 2, 32), (1, 1, 2, 1, 2)],
)
def test_attention(threads: None, batch: int, time: int, num_heads: int, num_kv_heads: int, channels: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, time, num_heads + 2 * num_kv_heads, channels).bfloat16()
    gradient, tables = torch.randn(batch, time, num_heads, channels).bfloat16(), rotary_tables(time, channels)
    output, logs = operators.attention(x, *tables, num_heads)
    of_x = operators.attention_backward(x, *tables, output, logs, gradient)
    assert_as_near([output, of_x], lambda x: attend(x, num_heads), [x], gradient)


def test_no_position_sees_a_later_one_and_large_scores_do_no_harm() -> None:
    torch.manual_seed(0)
    x, tables = 100 * torch.randn(1, 70, 6, 36).bfloat16(), rotary_tables(70, 36)
    output, _ = operators.attention(x, *tables, 2)
    assert output.isfinite().all()
    x[:, 40:, 2:] = 7
    after, _ = operators.attention(x, *tables, 2)
    assert torch.equal(after[:, :40], output[:, :40])
    assert not torch.equal(after[:, 40:], output[:, 40:])


def test_very_low_scores_keep_gradients_finite() -> None:
    """100 queries do not fill blocks of 64: the empty places must not take part, whatever is left there."""
    tables = torch.ones(100, 18), torch.zeros(100, 18)
    ones = torch.ones(1, 100, 2, 36).bfloat16()
    x = torch.cat((9 * ones, -9 * ones, torch.randn(1, 100, 2, 36).bfloat16()), dim=2)
    output, logs = operators.attention(x, *tables, 2)
    assert operators.attention_backward(x, *tables, output, logs, ones).isfinite().all()


@pytest.mark.parametrize(
    ("tokens", "num_in", "num_out"), [(300, 36, 100), (1, 8, 24), (64, 288, 144), (2, 33, 17), (600, 40, 7000)]
)
def test_the_gradient_of_a_weight(threads: None, tokens: int, num_in: int, num_out: int) -> None:
    torch.manual_seed(0)
    x, gradient = torch.randn(tokens, num_in).bfloat16(), torch.randn(tokens, num_out).bfloat16()
    expected = gradient.double().t() @ x.double()
    found = torch.full((num_out, num_in), torch.nan)
    operators.weight_gradient(gradient, x, found, adds=False)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)
    operators.weight_gradient(gradient, x, found, adds=True)
    torch.testing.assert_close(found, 2 * expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size_of_x", [1, 1e-3], ids=["usual", "so small that eps counts"])
@pytest.mark.parametrize(("rows", "size"), [(64, 288), (5, 36), (33, 16), (1, 100)])
def test_norm(threads: None, rows: int, size: int, size_of_x: float) -> None:
    torch.manual_seed(0)
    x, gain = size_of_x * torch.randn(rows, size).bfloat16(), torch.rand(size).bfloat16()
    gradient, norm = torch.randn(rows, size).bfloat16(), RMSNorm(size, 1e-5)
    normed, inverses = operators.rms_norm(x, gain, norm.eps)
    of_gain = torch.full((size,), torch.nan)
    of_x = operators.rms_norm_backward(x, gain, inverses, gradient, None, of_gain, adds=False)

    def theirs(x: Tensor, gain: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(norm, {"weight": gain}, x)
        return result

    assert_as_near([normed, of_x, of_gain], theirs, [x, gain], gradient)
    more, twice = torch.randn(rows, size).bfloat16(), of_gain.clone()
    both = operators.rms_norm_backward(x, gain, inverses, gradient, more, twice, adds=True)
    torch.testing.assert_close(
        both.float(), of_x.float() + more.float(), rtol=0.01, atol=0.01 * of_x.abs().max().item()
    )
    torch.testing.assert_close(twice, 2 * of_gain)


@pytest.mark.parametrize("shape", [(18, 100), (7, 1), (1, 768)])
def test_swiglu(threads: None, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    gate, up, gradient = 5 * torch.randn(3, *shape).bfloat16()
    product = operators.swiglu(gate, up)
    of_both, again = operators.swiglu_backward(gate, up, gradient)
    assert torch.equal(again, product)
    assert_as_near([product, *of_both.chunk(2, dim=1)], lambda gate, up: F.silu(gate) * up, [gate, up], gradient)


def test_swiglu_of_extreme_gates() -> None:
    gate = torch.tensor([[-2e38, -1000, -100, -88, 0, 88, 1000, 3e38]]).bfloat16()
    product = operators.swiglu(gate, torch.ones_like(gate))
    assert torch.allclose(product, F.silu(gate), rtol=1e-2, atol=1e-34)


@pytest.mark.parametrize("size_of_logits", [1, 100], ids=["usual", "powers of e that are no numbers"])
@pytest.mark.parametrize(("vocab_size", "tokens"), [(4096, 10), (100, 3), (17, 4)])
def test_loss(threads: None, vocab_size: int, tokens: int, size_of_logits: float) -> None:
    torch.manual_seed(0)
    logits, targets = size_of_logits * torch.randn(tokens, vocab_size).bfloat16(), torch.randint(vocab_size, (tokens,))
    losses, logs = operators.cross_entropy(logits, targets)
    of_logits = operators.cross_entropy_backward(logits, targets, logs, torch.tensor(1 / 3))

    def theirs(logits: Tensor) -> Tensor:
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(wide, targets, reduction="none")

    assert_as_near([losses, of_logits], theirs, [logits], torch.full((tokens,), 1 / 3))


def test_a_target_that_is_no_token_is_refused() -> None:
    for target in (-1, 10):
        with pytest.raises(IndexError, match="not one of the 10 tokens"):
            operators.cross_entropy(torch.ones(1, 10).bfloat16(), torch.tensor([target]))


def test_numbers_that_are_none_come_through() -> None:
    """The training loop tells them; a kernel that swallowed them would hide that weights are gone."""
    x = torch.ones(2, 32).bfloat16()
    x[0, 3] = torch.nan
    of_weight = torch.zeros(32, 32)
    operators.weight_gradient(torch.ones(2, 32).bfloat16(), x, of_weight, adds=True)
    assert of_weight[:, 3].isnan().all()
    assert operators.rms_norm(x, torch.ones(32).bfloat16(), 1e-5)[0][0].isnan().all()
    assert operators.swiglu(x, x)[0, 3].isnan()
    assert operators.cross_entropy(x, torch.zeros(2, dtype=torch.int64))[0][0].isnan()
    for head in range(3):  # the query's, the key's, the value's
        x = torch.ones(1, 40, 3, 36).bfloat16()
        x[0, 0, head, 0] = torch.nan
        assert operators.attention(x, *rotary_tables(40, 36), 1)[0][0, 0].isnan().any()
