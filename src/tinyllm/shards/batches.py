"""The training order: the tokens of a step are a pure function of (seed, step, rank, ranks) over the shards.

A window is `sequence_length + 1` tokens of one shard, and windows start every `sequence_length` tokens. So each token
is a target once an epoch, and no window spans two shards. Aligned windows start at document starts instead: a document
that a window cuts off starts the next window. So the model sees each document from its start, as in generation.

`order` has the permutation of the windows in each epoch, and a step takes the next windows in this order. So the data
state of a training run is one integer, the step. The starts of windows are arithmetic on 8 bytes a shard. The start
of an aligned window depends on all documents before it: all are found once, into a memory-mapped temporary file.

Shapes: M microbatches of a step on one rank, B windows in a microbatch, T targets in a window (`sequence_length`).
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tinyllm import storage
from tinyllm.errors import InputError
from tinyllm.shards.arrays import ShardArrays
from tinyllm.shards.order import FEISTEL, ORDERS, Indices

Windows = npt.NDArray[np.int64]
Starts = npt.NDArray[np.int64]


class WindowOrder:
    """The windows of the shards, and the infinite order in which training visits them."""

    def __init__(
        self,
        shard_tokens: Sequence[int] | Indices,
        sequence_length: int,
        seed: int = 0,
        document_starts: Iterable[Starts] | None = None,
        permutation: str = FEISTEL,
    ) -> None:
        """`shard_tokens` are the lengths of the shards in tokens; `document_starts`, if given, align the windows.

        `permutation` is a name in `order.ORDERS`. Raises InputError if no shard is long enough for one window.
        """
        if sequence_length < 1:
            raise ValueError(f"sequence_length is {sequence_length}; a window predicts at least 1 token")
        self.sequence_length, self.seed, self.permutation = sequence_length, seed, permutation
        tokens = np.asarray(shard_tokens, dtype=np.int64)
        self._starts: npt.NDArray[np.unsignedinteger] | None = None
        if document_starts is None:
            windows_per_shard = np.maximum(0, tokens - 1) // sequence_length
        else:
            windows_per_shard, self._starts = _store_aligned(document_starts, tokens, sequence_length)
        self._first_window = np.concatenate([[0], np.cumsum(windows_per_shard)]).astype(np.int64)
        self.num_windows = int(self._first_window[-1])
        if not self.num_windows:
            longest = int(max(tokens, default=0))
            raise InputError(
                f"the corpus is too small: {longest} tokens in its longest shard, but one window needs "
                f"{sequence_length + 1} (sequence_length {sequence_length} + 1); "
                "use a smaller sequence_length, or give more text"
            )

    def windows_at(self, positions: Indices) -> Indices:
        """The windows at `positions`, counted from 0, of the infinite order; int64 of the same shape."""
        epochs, places = np.divmod(positions, self.num_windows)
        windows = np.empty_like(places)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            windows[inside] = ORDERS[self.permutation](places[inside], self.num_windows, self.seed, int(epoch))
        return windows

    def locate(self, windows: Indices) -> tuple[Indices, Starts]:
        """The shard of each window, and the index of the window's first token in the shard."""
        shards = np.searchsorted(self._first_window, windows, side="right") - 1
        if self._starts is not None:
            return shards, self._starts[windows].astype(np.int64)
        return shards, (windows - self._first_window[shards]) * self.sequence_length


def align_windows(document_starts: Starts, num_tokens: int, sequence_length: int) -> Starts:
    """The starts of the aligned windows of one array, ascending; `document_starts` are ascending, from 0.

    A document longer than a window continues in further windows, each starting at the end of the previous one.
    """
    lengths = np.diff(document_starts, append=num_tokens)
    # The windows of a document that begins a window, and the document that their last target belongs to.
    num_windows = np.maximum(1, -(-lengths // sequence_length))
    following = np.searchsorted(document_starts, document_starts + num_windows * sequence_length, side="right") - 1
    chain, document, next_documents = [], 0, following.tolist()
    while True:
        chain.append(document)
        if next_documents[document] <= document:
            break
        document = next_documents[document]
    counts = num_windows[chain]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts: Starts = np.repeat(document_starts[chain], counts) + within * sequence_length
    return starts[starts + sequence_length + 1 <= num_tokens].astype(np.int64)


def _store_aligned(
    document_starts: Iterable[Starts], shard_tokens: Indices, sequence_length: int
) -> tuple[Indices, npt.NDArray[np.unsignedinteger]]:
    """The number of aligned windows of each shard, and all their starts in a memory-mapped temporary file."""
    dtype = np.dtype(np.uint32 if max(shard_tokens, default=0) < 2**32 else np.uint64)
    counts: list[int] = []

    def parts() -> Iterator[bytes]:
        for starts, num_tokens in zip(document_starts, shard_tokens.tolist(), strict=True):
            aligned = align_windows(starts, num_tokens, sequence_length)
            counts.append(len(aligned))
            yield aligned.astype(dtype).tobytes()

    mapped = storage.map_temporary(parts())
    return np.array(counts, dtype=np.int64), np.frombuffer(mapped, dtype=dtype)


def share_of_step(num_windows: int, rank: int, num_ranks: int) -> range:
    """The places in a step of `num_windows` windows that `rank` trains on: consecutive, and at most one more or fewer.

    The shares of all ranks are the whole step, so a step trains on the same windows for any number of ranks.
    """
    return range(rank * num_windows // num_ranks, (rank + 1) * num_windows // num_ranks)


def step_windows(
    order: WindowOrder, step: int, batch_size: int, accumulation_steps: int, rank: int = 0, num_ranks: int = 1
) -> list[Indices]:
    """The windows (B) of each microbatch of one rank in one step; the last one may have fewer than `batch_size`.

    A step has `accumulation_steps` x `batch_size` windows, of which a rank has a share. Raises ValueError if there are
    more ranks than windows.
    """
    num_windows = accumulation_steps * batch_size
    if not (0 <= rank < num_ranks <= num_windows and step >= 0):
        raise ValueError(
            f"no rank {rank} of {num_ranks} in step {step}: a step has {num_windows} windows, at least one a rank"
        )
    share = share_of_step(num_windows, rank, num_ranks)
    windows = order.windows_at(step * num_windows + np.arange(share.start, share.stop))
    return [windows[start : start + batch_size] for start in range(0, len(share), batch_size)]


def read_windows(split: ShardArrays, order: WindowOrder, windows: Sequence[int] | Indices) -> Windows:
    """The tokens (B, T + 1) of the given windows, int64; inputs are [:, :-1] and targets [:, 1:].

    Raises ArtifactError if the file of a shard became shorter, or its disk fails.
    """
    shards, starts = order.locate(np.asarray(windows, dtype=np.int64))
    tokens = np.empty((len(shards), order.sequence_length + 1), dtype=np.int64)
    for row, (shard, start) in enumerate(zip(shards.tolist(), starts.tolist(), strict=True)):
        tokens[row] = split.read(shard, start, order.sequence_length + 1)
    return tokens


def validation_windows(order: WindowOrder, num_windows: int) -> list[int]:
    """`num_windows` windows, or all if there are fewer, evenly spaced and the same on every call."""
    num_chosen = min(num_windows, order.num_windows)
    return [place * order.num_windows // num_chosen for place in range(num_chosen)]
