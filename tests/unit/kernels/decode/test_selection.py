"""The threshold search against sorting. The signatures compile before a test is timed."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.generation import sampling
from unit.kernels.decode.compiled import memory, njit, njit_with, random_floats, selection


@njit_with("float64(int64, int64, int64, float64)")
def cutoff(numbers: int, size: int, k: int, top: float) -> float:
    found: float = selection.top_k_cutoff(memory.floats(numbers), size, k, np.float32(top))
    return found


@njit_with("void(int64, int64, float64)")
def keep(weights: int, size: int, p: float) -> None:
    selection.keep_top_p(memory.floats(weights), size, p)


@njit
def round_trip(number: float) -> float:
    restored: float = selection.float_of_key(np.int64(memory.key_of(np.float32(number))))
    return restored


@given(seed=st.integers(0, 10_000), size=st.sampled_from([1, 7, 203, 1_025]), decimals=st.sampled_from([1, 7]))
def test_top_k_cutoff_keeps_what_sorting_keeps(seed: int, size: int, decimals: int) -> None:
    numbers = random_floats(size, seed=seed).round(decimals)
    k = 1 + seed % size
    threshold = cutoff(numbers.ctypes.data, size, k, float(numbers.max()))
    np.testing.assert_array_equal(numbers >= threshold, numbers >= np.sort(numbers)[-k])


@given(seed=st.integers(0, 10_000), p=st.floats(0.01, 0.999), decimals=st.sampled_from([1, 7]))
def test_top_p_keeps_the_smallest_set_that_reaches_its_sum(seed: int, p: float, decimals: int) -> None:
    logits = random_floats(1_025, seed=seed).round(decimals)
    weights: npt.NDArray[np.float32] = np.exp(logits - logits.max())
    kept = weights.copy()
    keep(kept.ctypes.data, len(kept), p)
    difference = np.flatnonzero((kept > 0) != sampling.top_p(weights, p))
    assert len(difference) <= 1, "rounding of the sums moves the end by one token at most"
    np.testing.assert_array_equal(kept[kept > 0], weights[kept > 0])


@pytest.mark.parametrize("number", [0.0, 1.0, -1.0, 1e-38, -1e-38, 3.4e38, -3.4e38])
def test_keys_can_be_inverted(number: float) -> None:
    assert round_trip(number) == np.float32(number)
