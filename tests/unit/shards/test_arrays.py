"""Shards are opened when they are read, and a bounded number stays open."""

import os
from pathlib import Path

import numpy as np
import pytest

from tinyllm.errors import ArtifactError
from tinyllm.machine import system
from tinyllm.shards import arrays
from tinyllm.shards.arrays import ShardArrays, TokenArray, TokenFile, as_arrays

LENGTHS = np.array([3, 0, 5, 1])


class Disk:
    """Opens shards, and records which."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    def open(self, number: int) -> TokenArray:
        self.opened.append(number)
        return TokenArray(np.full(LENGTHS[number], number, dtype=np.uint16))


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


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """A file with the ids 0 to 9."""
    path = tmp_path / "ids.bin"
    path.write_bytes(np.arange(10, dtype="<u2").tobytes())
    return path


@pytest.mark.parametrize("has_pread", [True, False], ids=["pread", "seek"])
def test_a_file_is_read_by_position(ids: Path, has_pread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_pread:
        monkeypatch.delattr(os, "pread")
    file = TokenFile(ids, "uint16", 6, first=3)
    assert file.ids.tolist() == [3, 4, 5, 6, 7, 8]
    assert [file.read(start, 2).tolist() for start in (4, 0)] == [[7, 8], [3, 4]]
    ids.write_bytes(b"")
    assert TokenFile(ids, "uint16").ids.tolist() == []


def test_a_file_that_became_shorter_is_an_error_and_no_signal(ids: Path) -> None:
    file = TokenFile(ids, "uint16")
    os.truncate(ids, 4)
    assert file.read(0, 2).tolist() == [0, 1]
    with pytest.raises(ArtifactError, match=r"ids\.bin became shorter while it was in use; restore it"):
        file.read(1, 2)


def test_a_disk_that_fails_is_an_error_with_its_reason(ids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    file = TokenFile(ids, "uint16")
    monkeypatch.setattr(system, "read_at", fail)
    with pytest.raises(ArtifactError, match=r"ids\.bin cannot be read any more: Input/output error"):
        file.read(0, 1)
