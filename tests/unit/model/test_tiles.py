"""Attention in tiles against PyTorch's own in float64, and where its compiled code comes from."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.model import tiles
from tinyllm.model.attention import attend_tiled

needs_tiles = pytest.mark.skipif(not tiles.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler")


@pytest.fixture
def kernels(user_cache: Path) -> None:
    assert tiles.load(user_cache / "kernels", lambda line: None) == ""


def exact(query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Output and gradients of PyTorch's attention."""
    leaves = [x.to(dtype).requires_grad_() for x in (query, key, value)]
    output = F.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient.to(dtype))]


@needs_tiles
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize(
    ("batch", "time", "num_heads", "num_kv_heads", "channels"),
    [(2, 256, 8, 4, 36), (1, 100, 4, 4, 48), (2, 33, 3, 1, 12), (1, 65, 2, 2, 128), (3, 64, 6, 2, 32), (1, 1, 2, 1, 8)],
)
def test_it_is_as_near_to_exact_attention_as_pytorchs(
    kernels: None, batch: int, time: int, num_heads: int, num_kv_heads: int, channels: int, num_threads: int
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


@needs_tiles
def test_no_position_sees_a_later_one_and_large_scores_do_no_harm(kernels: None) -> None:
    torch.manual_seed(0)
    query, key, value = (100 * torch.randn(1, 2, 70, 36).bfloat16() for _ in range(3))
    output = attend_tiled(query, key, value)
    assert output.isfinite().all()
    for changed in (key, value):
        changed[:, :, 40:] = 7
    after = attend_tiled(query, key, value)
    assert torch.equal(after[:, :, :40], output[:, :, :40])
    assert not torch.equal(after[:, :, 40:], output[:, :, 40:])


@needs_tiles
def test_very_low_scores_keep_gradients_finite(kernels: None) -> None:
    """100 queries do not fill blocks of 64: the empty places must not take part, whatever is left there."""
    ones = torch.ones(1, 2, 100, 36).bfloat16()
    leaves = [x.requires_grad_() for x in (9 * ones, -9 * ones, torch.randn(1, 2, 100, 36).bfloat16())]
    gradients = torch.autograd.grad(attend_tiled(*leaves), leaves, ones)
    assert all(gradient.isfinite().all() for gradient in gradients)


@needs_tiles
def test_numbers_that_are_none_come_through(kernels: None) -> None:
    """The training loop tells them; an attention that swallowed them would hide that weights are gone."""
    query, key, value = torch.ones(3, 1, 2, 40, 36).bfloat16()
    value[0, 0, 0, 0] = torch.nan
    assert attend_tiled(query, key, value)[0, 0].isnan().any()


LOAD = """
import sys
from pathlib import Path
from tinyllm.model import tiles
print(repr(tiles.load(Path(sys.argv[1]), lambda line: print(line))))
"""


def load_elsewhere(folder: Path, **environment: str) -> list[str]:
    """What a process of its own tells and gives."""
    run = subprocess.run(
        [sys.executable, "-c", LOAD, folder], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return run.stdout.splitlines()


@needs_tiles
def test_it_is_compiled_once_and_again_when_the_file_was_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert load_elsewhere(tmp_path, **environment) == [
        "compiling tiled attention for this CPU, once: about three seconds",
        "''",
    ]
    assert load_elsewhere(tmp_path, **environment) == ["''"]
    (kept,) = tmp_path.glob("tiles-*.so")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert "compiling" in load_elsewhere(tmp_path, **environment)[0]


@needs_tiles
def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho In function f: >&2\necho error: out of registers >&2\nexit 1\n")
    broken.chmod(0o755)
    *_, answer = load_elsewhere(tmp_path / "cache", PATH="/usr/bin:/bin", CXX=str(broken))
    assert answer == "'tiled attention cannot be made ready: the C++ compiler failed: error: out of registers'"
    broken.write_text("no program")
    *_, answer = load_elsewhere(tmp_path / "cache", PATH="/usr/bin:/bin", CXX=str(broken))
    assert "Exec format error" in answer
    assert load_elsewhere(tmp_path / "cache", PATH="")[-1].startswith("'tiled attention needs Linux")
    (tmp_path / "file").write_text("no folder")
    told = load_elsewhere(tmp_path / "file", PATH="/usr/bin:/bin")
    assert any("compiled attention is not kept" in line for line in told)
    assert told[-1] == "''", "it works all the same"
