"""Tests the order of batches: properties that hold for any shards, and small examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import InputError
from tinyllm.shards.arrays import as_arrays
from tinyllm.shards.batches import Starts, WindowOrder, align_windows, read_windows, step_windows, validation_windows
from tinyllm.shards.encoding import Tokens
from tinyllm.shards.format import find_document_starts
from tinyllm.shards.order import PHILOX

LENGTHS = st.lists(st.integers(0, 200), min_size=1, max_size=6).filter(lambda lengths: max(lengths) > 12)
LENGTH = st.integers(1, 12)


def numbered(lengths: list[int]) -> list[Tokens]:
    """Arrays in which each token is its index in the corpus."""
    tokens = np.arange(sum(lengths), dtype=np.uint32)
    return list(np.split(tokens, np.cumsum(lengths)[:-1]))


@given(LENGTHS, LENGTH, st.integers(0, 2**63 - 1), st.integers(0, 3))
def test_each_epoch_visits_each_window_once(lengths: list[int], length: int, seed: int, epoch: int) -> None:
    order = WindowOrder(lengths, length, seed)
    visited = order.windows_at(epoch * order.num_windows + np.arange(order.num_windows))
    assert sorted(visited.tolist()) == list(range(order.num_windows))


@given(LENGTHS, LENGTH)
def test_windows_stay_in_their_shard_and_predict_each_token_at_most_once(lengths: list[int], length: int) -> None:
    order = WindowOrder(lengths, length)
    windows = read_windows(as_arrays(numbered(lengths)), order, range(order.num_windows))
    assert (np.diff(windows, axis=1) == 1).all()
    ends = np.cumsum(lengths)
    shards = np.searchsorted(ends, windows, side="right")
    assert (shards == shards[:, :1]).all()
    targets = windows[:, 1:].ravel()
    assert len(set(targets.tolist())) == len(targets)
    # The rest of a shard is shorter than a window.
    assert len(targets) == sum((size - 1) // length * length for size in lengths if size)


@given(LENGTHS, LENGTH, st.integers(0, 50), st.integers(1, 5), st.integers(1, 4), st.data())
def test_ranks_share_the_same_global_order(
    lengths: list[int], length: int, step: int, accumulation_steps: int, batch_size: int, data: st.DataObject
) -> None:
    num_windows = accumulation_steps * batch_size
    num_ranks = data.draw(st.integers(1, num_windows))
    order = WindowOrder(lengths, length, seed=7)
    windows: list[int] = []
    for rank in range(num_ranks):
        batches = step_windows(order, step, batch_size, accumulation_steps, rank, num_ranks)
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert 1 <= len(batches[-1]) <= batch_size
        assert sum(map(len, batches)) in (num_windows // num_ranks, -(-num_windows // num_ranks))
        windows += np.concatenate(batches).tolist()
    assert windows == order.windows_at(step * num_windows + np.arange(num_windows)).tolist()


def test_small_batch_has_the_expected_tokens() -> None:
    arrays = [np.array([10, 11, 12, 13, 14, 15], dtype=np.uint16), np.array([20, 21, 22, 23], dtype=np.uint16)]
    order = WindowOrder([6, 4], 2)
    assert order.num_windows == 3
    windows = read_windows(as_arrays(arrays), order, [0, 1, 2])
    assert windows.tolist() == [[10, 11, 12], [12, 13, 14], [20, 21, 22]]
    assert windows.dtype == np.int64
    (microbatch,) = step_windows(order, step=0, batch_size=3, accumulation_steps=1)
    assert sorted(read_windows(as_arrays(arrays), order, microbatch).tolist()) == windows.tolist()


def places(start: int, stop: int) -> Starts:
    return np.arange(start, stop, dtype=np.int64)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first, same, other = (WindowOrder([10_000], 10, seed).windows_at(places(0, 1998)).tolist() for seed in (1, 1, 2))
    assert first == same != other
    assert first[:999] != first[999:]
    assert sorted(first[:999]) == sorted(first[999:])
    # Only the position decides: reading a late one alone changes nothing.
    assert WindowOrder([10_000], 10, 1).windows_at(places(1500, 1501)) == first[1500]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[5, 0, 4, 7, 2, 6, 1, 3, 9, 8], [6, 4, 0, 9, 7, 5, 3, 8, 2, 1]]),
        ({"permutation": PHILOX}, [[7, 8, 4, 0, 2, 6, 5, 3, 9, 1], [6, 4, 9, 5, 7, 1, 2, 0, 8, 3]]),
    ],
)
def test_order_is_the_same_on_every_machine(options: dict[str, str], expected: list[list[int]]) -> None:
    """Pins both orders: any change would break the resumption of existing runs."""
    order = WindowOrder([101], 10, seed=1337, **options)  # type: ignore[arg-type]
    assert order.windows_at(places(0, 20)).tolist() == expected[0] + expected[1]


def test_validation_windows_are_spread_evenly() -> None:
    order = WindowOrder([1001], 10)
    assert validation_windows(order, 4) == [0, 25, 50, 75]
    assert validation_windows(order, 1000) == list(range(100))
    assert validation_windows(order, 4) == validation_windows(WindowOrder([1001], 10, seed=5), 4)


@pytest.mark.parametrize("lengths", [[], [0], [10], [3, 10, 2]])
def test_too_small_a_corpus_names_both_lengths(lengths: list[int]) -> None:
    longest = max(lengths, default=0)
    with pytest.raises(InputError, match=f"{longest} tokens in its longest shard, but one window needs 11 "):
        WindowOrder(lengths, 10)


def test_arguments_out_of_range_are_refused() -> None:
    order = WindowOrder([100], 10)
    for step, rank, num_ranks in ((-1, 0, 2), (0, 2, 2), (0, -1, 2), (0, 0, 5)):
        with pytest.raises(ValueError, match=f"no rank {rank} of {num_ranks} in step {step}: a step has 4 windows"):
            step_windows(order, step, 1, 4, rank, num_ranks)
    with pytest.raises(ValueError, match="sequence_length is 0"):
        WindowOrder([100], 0)


def align_one_by_one(document_starts: Starts, num_tokens: int, sequence_length: int) -> list[int]:
    """The definition of aligned windows: if a window cuts a document that began in it, that one begins the next."""
    starts, start = [], 0
    while start + sequence_length + 1 <= num_tokens:
        starts.append(start)
        end = start + sequence_length
        cut = int(document_starts[np.searchsorted(document_starts, end, side="right") - 1])
        start = cut if cut > start else end
    return starts


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=30),
    sequence_length=st.integers(1, 12),
)
def test_aligned_windows_show_each_document_from_its_start(lengths: list[int], sequence_length: int) -> None:
    starts = np.cumsum([0, *lengths[:-1]])
    num_tokens = sum(lengths)
    windows = align_windows(starts, num_tokens, sequence_length).tolist()
    assert windows == align_one_by_one(starts, num_tokens, sequence_length)
    # Every token up to the last window's end is a target, except the first token of the array.
    predicted = {token for start in windows for token in range(start + 1, start + sequence_length + 1)}
    assert predicted == set(range(1, max(predicted, default=0) + 1))
    assert num_tokens - 1 - max(predicted, default=0) < 2 * sequence_length
    # A window starts with a document, or continues a document that is longer than a window.
    for before, start in zip([0, *windows], windows, strict=False):
        inside = starts[np.searchsorted(starts, start, side="right") - 1]
        assert start == inside or start == before + sequence_length


def test_aligned_order_visits_each_window_once_an_epoch() -> None:
    array = np.array([1, 5, 6, 1, 7, 8, 9, 1, 5, 1, 6, 7, 8, 9, 10, 11, 12, 1, 3], dtype=np.uint16)
    arrays = [array, array[:0], array[:8]]
    starts = (find_document_starts(shard, 1) for shard in arrays)
    order = WindowOrder([len(shard) for shard in arrays], 4, seed=1, document_starts=starts)
    rows = read_windows(as_arrays(arrays), order, np.sort(order.windows_at(places(0, order.num_windows))))
    whole = [[1, 5, 6, 1, 7], [1, 7, 8, 9, 1], [1, 5, 1, 6, 7], [1, 6, 7, 8, 9], [9, 10, 11, 12, 1]]
    assert rows.tolist() == [*whole, [1, 5, 6, 1, 7], [1, 7, 8, 9, 1]]
