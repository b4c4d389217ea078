"""The key/value cache: with it, each new token costs one position instead of the whole text.

Every row has its own length, so rows of one pass may stand at different positions. The cache does not slide: a caller
that fills a row starts the row again at length 0.

Shapes: L layers, B rows of one pass, K key/value heads, T new positions, S positions including cached ones, D channels
of one head.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from tinyllm.config import ModelConfig


class KVCache:
    """Keys and values (L, rows, K, context, D) each; row i of a pass has `lengths[i]` filled positions."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        num_spare: int = 0,
    ) -> None:
        """`num_spare` more positions than the context belong to no text."""
        num_positions = config.context_length + num_spare
        shape = (config.num_layers, batch_size, config.num_kv_heads, num_positions, config.head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self._use(slice(0, batch_size), [0] * batch_size)

    def select(self, rows: Sequence[int], lengths: Sequence[int]) -> Self:
        """The cache of some `rows`, which hold `lengths` positions; shares memory with this one."""
        selected = object.__new__(type(self))
        selected.keys, selected.values = self.keys, self.values
        first = rows[0]
        if list(rows) == list(range(first, first + len(rows))):
            selected._use(slice(first, first + len(rows)), lengths)  # a view; other rows are gathered, layer by layer
        else:
            selected._use(torch.tensor(rows, device=self.keys.device), lengths)
        return selected

    def _use(self, rows: slice | Tensor, lengths: Sequence[int]) -> None:
        self._rows, self.lengths = rows, list(lengths)
        self._mask: Tensor | None = None

    @property
    def is_ragged(self) -> bool:
        """Whether the rows differ in length."""
        return len(set(self.lengths)) > 1

    def positions(self, num_positions: int) -> Tensor:
        """Positions (B, T) int64 of the next T tokens of each row."""
        starts = torch.tensor(self.lengths, device=self.keys.device)
        return starts[:, None] + torch.arange(num_positions, device=self.keys.device)

    def mask(self, num_positions: int) -> Tensor | None:
        """Keys (B, 1, T, S) that each of T new positions sees, if the rows differ in length; else None."""
        if not self.is_ragged:
            return None
        if self._mask is None:  # one mask serves all layers
            keys = torch.arange(max(self.lengths) + num_positions, device=self.keys.device)
            self._mask = (keys <= self.positions(num_positions)[:, :, None])[:, None]
        return self._mask

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends `keys`, `values` (B, K, T, D) of one layer; returns those of S positions, (B, K, S, D) each.

        S is that of the longest row. `lengths` stay the same until `advance`: all layers append at the same positions.
        """
        num_new = keys.shape[2]
        end = max(self.lengths) + num_new
        for stored, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if self.is_ragged:
                # The two indices enclose a slice, so their shape (B, T) comes first: (B, T, K, D).
                stored[self._row_numbers()[:, None], :, self.positions(num_new)] = new.transpose(1, 2)
            else:
                stored[self._rows, :, end - num_new : end] = new
        return self.keys[layer, self._rows, :, :end], self.values[layer, self._rows, :, :end]

    def advance(self, num_positions: int) -> None:
        """Adds `num_positions` to every length, after every layer has appended them."""
        self.lengths = [length + num_positions for length in self.lengths]
        self._mask = None

    def copy_row(self, source: int, targets: Sequence[int], length: int) -> None:
        """Copies the first `length` positions of row `source` to the rows `targets`."""
        index = torch.tensor(targets, device=self.keys.device)
        for stored in (self.keys, self.values):
            stored[:, index, :, :length] = stored[:, source : source + 1, :, :length]

    def clear_rows(self, rows: Sequence[int]) -> None:
        """Zeroes the keys and values of `rows`."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.keys.device)
        self.keys[:, index], self.values[:, index] = 0, 0

    def _row_numbers(self) -> Tensor:
        if isinstance(self._rows, Tensor):
            return self._rows
        return torch.arange(self._rows.start, self._rows.stop, device=self.keys.device)


class StaticCache(KVCache):
    """The first B rows of a cache, for one new token each, at positions that are a tensor.

    No shape and no address depends on the lengths of the texts, so a CUDA graph of a pass can be replayed. A row whose
    text reads nothing writes after its last token: the next token of that text overwrites it.
    """

    def __init__(self, cache: KVCache, positions: Tensor, num_keys: int) -> None:
        """`positions` (B,) are those of the new tokens; each row sees its first keys, at most `num_keys`."""
        num_rows = len(positions)
        self.keys, self.values = cache.keys[:, :num_rows], cache.values[:, :num_rows]
        self._positions, self._num_keys = positions, num_keys
        self._all_rows = torch.arange(num_rows, device=positions.device)
        keys = torch.arange(num_keys, device=positions.device)
        self._seen = (keys <= positions[:, None])[:, None, None]

    def mask(self, num_positions: int) -> Tensor:  # noqa: ARG002 (one new position each)
        """Keys (B, 1, 1, S) that each new position sees."""
        return self._seen

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes `keys`, `values` (B, K, 1, D) of one layer; returns those of S positions, (B, K, S, D) each."""
        for stored, new in ((self.keys[layer], keys), (self.values[layer], values)):
            stored[self._all_rows, :, self._positions] = new[:, :, 0]
        return self.keys[layer, :, :, : self._num_keys], self.values[layer, :, :, : self._num_keys]
