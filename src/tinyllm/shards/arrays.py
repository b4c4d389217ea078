"""The shards of one split as arrays of token ids, each opened when it is read; a bounded number stays open.

`split[number]` is a memory map of a whole shard. If its file becomes shorter or its disk fails, the system ends the
process (SIGBUS). `split.read` reads some ids by a call of the system, which gives an error then.
"""

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Protocol, overload

import numpy as np
import numpy.typing as npt

from tinyllm.errors import ArtifactError
from tinyllm.machine import system
from tinyllm.shards.encoding import Tokens

OPEN_SHARDS = 256
"""Shards of a split that stay open, with one or two descriptors each; a process may have about a thousand."""


class Shard(Protocol):
    """The ids of one shard."""

    @property
    def ids(self) -> Tokens:
        """All ids, read-only."""

    def read(self, start: int, count: int) -> Tokens:
        """`count` ids from `start`."""


class TokenFile:
    """The ids of a `.bin` file, or `length` of them from `first`; open while an object refers to it."""

    def __init__(
        self, path: Path, dtype: Literal["uint16", "uint32"], length: int | None = None, *, first: int = 0
    ) -> None:
        """Raises OSError if the system opens no such file."""
        self.path, self._dtype, self._first, self._length = path, np.dtype(dtype).newbyteorder("<"), first, length
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)

    @cached_property
    def ids(self) -> Tokens:
        """A read-only memory map."""
        if not os.fstat(self._file.fileno()).st_size:
            return np.zeros(0, dtype=self._dtype)
        mapped = np.memmap(self._file, dtype=self._dtype, mode="r")
        return mapped[self._first :][: self._length]

    def read(self, start: int, count: int) -> Tokens:
        """`count` ids from `start`. Raises ArtifactError if the file became shorter, or its disk fails."""
        width = self._dtype.itemsize
        try:
            content = system.read_at(self._file.fileno(), count * width, (self._first + start) * width)
        except OSError as error:
            raise ArtifactError(f"{self.path} cannot be read any more: {error.strerror}") from error
        if len(content) < count * width:
            raise ArtifactError(
                f"{self.path} became shorter while it was in use; restore it, or prepare the text again"
            )
        return np.frombuffer(content, dtype=self._dtype)


@dataclass(frozen=True)
class TokenArray:
    """Ids in memory."""

    ids: Tokens

    def read(self, start: int, count: int) -> Tokens:
        """`count` ids from `start`."""
        return self.ids[start : start + count]


class ShardArrays(Sequence[Tokens]):
    """Read-only arrays of ids, one a shard. Memory is 8 bytes a shard, and what the system keeps of mapped files."""

    def __init__(self, lengths: npt.NDArray[np.int64], open_shard: Callable[[int], Shard]) -> None:
        """`lengths` are in tokens; `open_shard` opens the shard of a number from 0."""
        self.lengths = lengths
        self._open = lru_cache(maxsize=OPEN_SHARDS)(open_shard)

    def read(self, number: int, start: int, count: int) -> Tokens:
        """`count` ids of a shard from `start`. Raises ArtifactError if its file became shorter, or its disk fails."""
        return self._open(number).read(start, count)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        if isinstance(index, slice):
            return [self._open(number).ids for number in range(*index.indices(len(self)))]
        return self._open(range(len(self))[index]).ids

    def __iter__(self) -> Iterator[Tokens]:
        return (self._open(number).ids for number in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self):,} shards with {int(self.lengths.sum()):,} tokens>"


def as_arrays(arrays: Sequence[Tokens]) -> ShardArrays:
    """Arrays that are in memory."""
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    return ShardArrays(lengths, lambda number: TokenArray(arrays[number]))
