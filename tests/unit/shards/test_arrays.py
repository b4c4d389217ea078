"""Shards are opened when they are read, and a bounded number stays open."""

import numpy as np
import pytest

from tinyllm.shards import arrays
from tinyllm.shards.arrays import ShardArrays, as_arrays
from tinyllm.shards.encoding import Tokens

LENGTHS = np.array([3, 0, 5, 1])


class Disk:
    """Opens shards, and records which."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    def open(self, number: int) -> Tokens:
        self.opened.append(number)
        return np.full(LENGTHS[number], number, dtype=np.uint16)


def test_a_shard_is_opened_when_it_is_read_and_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "OPEN_SHARDS", 2)
    disk = Disk()
    shards = ShardArrays(LENGTHS, disk.open)
    assert (len(shards), shards.lengths.tolist(), disk.opened) == (4, [3, 0, 5, 1], [])
    assert [shards[number].tolist() for number in (2, 0, 2, -4, 0)] == [[2] * 5, [0] * 3, [2] * 5, [0] * 3, [0] * 3]
    assert disk.opened == [2, 0]
    assert [array.tolist() for array in shards] == [[0] * 3, [], [2] * 5, [3]]
    assert disk.opened == [2, 0, 1, 2, 3], "the shard that was read least recently was closed"


def test_shards_are_a_sequence() -> None:
    shards = as_arrays([np.arange(3, dtype=np.uint16), np.arange(2, dtype=np.uint16)])
    assert [array.tolist() for array in shards[::-1]] == [[0, 1], [0, 1, 2]]
    assert repr(shards) == "<2 shards with 5 tokens>"
    for index in (2, -3):
        with pytest.raises(IndexError):
            shards[index]
    assert len(as_arrays([])) == 0
