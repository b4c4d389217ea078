"""Attention against its definition, written out head by head and position by position."""

import math

import pytest
import torch

from tinyllm.model.attention import attend


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("num_new", "num_all"), [(7, 7), (1, 7), (3, 7), (1, 1)])
def test_attend_is_softmax_of_scores_over_the_past(num_kv_heads: int, num_new: int, num_all: int) -> None:
    query = torch.randn(2, 4, num_new, 6)
    key, value = torch.randn(2, 2, num_kv_heads, num_all, 6)
    expected = torch.empty_like(query)
    for head in range(4):
        shared = head // (4 // num_kv_heads)
        for t in range(num_new):
            past = num_all - num_new + t + 1
            scores = torch.einsum("bd,bsd->bs", query[:, head, t], key[:, shared, :past]) / math.sqrt(6)
            expected[:, head, t] = torch.einsum("bs,bsd->bd", scores.softmax(-1), value[:, shared, :past])
    torch.testing.assert_close(attend(query, key, value), expected, rtol=1e-4, atol=1e-5)
