"""RMSNorm against torch's own."""

import torch

from tinyllm.model.norm import RMSNorm


def test_norm_equals_the_one_of_torch() -> None:
    norm = RMSNorm(48, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    x = 3 * torch.randn(4, 7, 48)
    torch.testing.assert_close(norm(x), torch.nn.functional.rms_norm(x, (48,), norm.weight, 1e-5))


def test_squares_are_summed_in_float32() -> None:
    norm, x = RMSNorm(4096, eps=1e-5).to(torch.bfloat16), torch.full((4096,), 1.0, dtype=torch.bfloat16)
    torch.testing.assert_close(norm(x), x)
    assert norm(x).dtype == torch.bfloat16
