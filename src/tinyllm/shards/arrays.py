"""The shards of one split as arrays of token ids, each opened when it is read; a bounded number stays open."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import overload

import numpy as np
import numpy.typing as npt

from tinyllm.shards.encoding import Tokens

OPEN_SHARDS = 256
"""Memory maps of a split that stay open; a process may have about a thousand files."""


class ShardArrays(Sequence[Tokens]):
    """Read-only arrays of ids, one a shard. Memory is 8 bytes a shard, and what the system keeps of mapped files."""

    def __init__(self, lengths: npt.NDArray[np.int64], open_shard: Callable[[int], Tokens]) -> None:
        """`lengths` are in tokens; `open_shard` maps the shard of a number from 0."""
        self.lengths = lengths
        self._open = lru_cache(maxsize=OPEN_SHARDS)(open_shard)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        if isinstance(index, slice):
            return [self._open(number) for number in range(*index.indices(len(self)))]
        return self._open(range(len(self))[index])

    def __iter__(self) -> Iterator[Tokens]:
        return map(self._open, range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self):,} shards with {int(self.lengths.sum()):,} tokens>"


def as_arrays(arrays: list[Tokens]) -> ShardArrays:
    """Arrays that are open already."""
    return ShardArrays(np.array([len(array) for array in arrays], dtype=np.int64), arrays.__getitem__)
