"""Tests that the orders of windows are permutations, and that the Feistel network shuffles evenly."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.shards.order import FEISTEL, ORDERS, feistel_order

TOLERATED_SIGMAS = 4.5
"""A sum of squares exceeds this limit by chance in one of about 100,000 cases; the keys are fixed."""


def epoch(num_windows: int, seed: int = 0, number: int = 0, order: str = FEISTEL) -> npt.NDArray[np.int64]:
    """All windows in the order of one epoch."""
    return ORDERS[order](np.arange(num_windows), num_windows, seed, number)


@pytest.mark.parametrize("order", ORDERS)
def test_each_epoch_of_few_windows_is_a_permutation(order: str) -> None:
    for num_windows in range(1, 301):
        visited = epoch(num_windows, seed=num_windows, number=num_windows % 3, order=order)
        assert sorted(visited.tolist()) == list(range(num_windows))


@pytest.mark.parametrize("num_windows", [65_535, 65_536, 65_537, 1_000_003])
def test_each_epoch_of_many_windows_is_a_permutation(num_windows: int) -> None:
    seen = np.zeros(num_windows, np.bool_)
    seen[epoch(num_windows, seed=3)] = True
    assert seen.all()


@given(
    st.integers(1, 2**62),
    st.lists(st.integers(0, 2**62), min_size=1, max_size=20, unique=True),
    st.integers(0, 2**63 - 1),
    st.integers(0, 10**6),
)
def test_places_of_any_corpus_have_windows_of_their_own(
    num_windows: int, places: list[int], seed: int, number: int
) -> None:
    chosen = np.unique(np.array(places, np.int64) % num_windows)
    windows = feistel_order(chosen, num_windows, seed, number)
    assert len(set(windows.tolist())) == len(chosen)
    assert ((windows >= 0) & (windows < num_windows)).all()
    # Each place is computed by itself.
    alone = [int(feistel_order(chosen[i : i + 1], num_windows, seed, number)[0]) for i in range(len(chosen))]
    assert windows.tolist() == alone


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(epoch(1000, seed, number)) for seed in (0, 1, 2**63 - 1) for number in (0, 1, 10**6)]
    assert len(set(orders)) == 9
    matches = [sum(a == b for a, b in zip(orders[0], other, strict=True)) for other in orders[1:]]
    assert max(matches) < 10, "two random permutations agree at about one place"


def sigmas(observed: npt.NDArray[np.float64], expected: float, degrees: int) -> float:
    """The distance of the chi-square of `observed` counts from its mean, in standard deviations."""
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    return (chi_square - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize(
    ("num_windows", "num_keys"),
    [
        *((num_windows, 700) for num_windows in (5, 6, 16)),
        *(
            pytest.param(num_windows, 5000, marks=pytest.mark.slow)
            for num_windows in (2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 31, 100)
        ),
    ],
)
def test_windows_and_neighbours_are_uniform_over_the_keys(num_windows: int, num_keys: int) -> None:
    """Every window is equally likely at every place, and every ordered pair at neighbouring places."""
    positions, pairs = np.zeros((2, num_windows, num_windows))
    places = np.arange(num_windows)
    for seed in range(num_keys):
        visited = epoch(num_windows, seed)
        positions[places, visited] += 1
        pairs[visited[:-1], visited[1:]] += 1
    uneven = sigmas(positions, num_keys / num_windows, (num_windows - 1) ** 2)
    assert abs(uneven) < TOLERATED_SIGMAS, f"positions are {uneven:.1f} sigmas from uniform"
    num_pairs = num_windows * (num_windows - 1)
    different = pairs[~np.eye(num_windows, dtype=np.bool_)]
    uneven = sigmas(different, num_keys * (num_windows - 1) / num_pairs, max(1, num_pairs - 1))
    assert abs(uneven) < TOLERATED_SIGMAS, f"pairs are {uneven:.1f} sigmas from uniform"


@pytest.mark.parametrize("num_windows", [1_000_000, 4_000_000_000])
def test_consecutive_windows_of_a_large_corpus_are_independent(num_windows: int) -> None:
    num_places = 200_000
    visited = feistel_order(np.arange(num_places), num_windows, 7, 0) / num_windows
    for distance in (1, 2, 1000):
        correlation = np.corrcoef(visited[:-distance], visited[distance:])[0, 1]
        assert abs(correlation) < TOLERATED_SIGMAS / math.sqrt(num_places)
    bins = (visited * 32).astype(int)
    counts = np.zeros((32, 32))
    np.add.at(counts, (bins[:-1], bins[1:]), 1)
    assert abs(sigmas(counts, (num_places - 1) / 32**2, 32**2 - 1)) < TOLERATED_SIGMAS
