"""The training order: the tokens of a step are a pure function of (seed, step, rank, world size) over the shards.

A window is `sequence_length + 1` tokens of one shard, and windows start every `sequence_length` tokens. So each token
is a target once an epoch, and no window spans two shards. Aligned windows start at document starts instead: a document
that a window cuts off starts the next window. So the model sees each document from its start, as in generation.

Each epoch is a permutation of all windows, and a step takes the next windows in this order. So the data state of a
training run is one integer, the step.

Shapes: B windows in a microbatch, T targets in a window (`sequence_length`).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tinyllm.errors import InputError
from tinyllm.shards.encoding import Tokens

Windows = npt.NDArray[np.int64]
Starts = npt.NDArray[np.int64]


class WindowOrder:
    """The windows of the shards, and the infinite order in which training visits them."""

    def __init__(
        self,
        shard_tokens: Sequence[int],
        sequence_length: int,
        seed: int = 0,
        document_starts: Sequence[Starts] | None = None,
    ) -> None:
        """`shard_tokens` are the lengths of the shards in tokens; `document_starts`, if given, align the windows.

        Raises InputError if no shard is long enough for one window.
        """
        if sequence_length < 1:
            raise ValueError(f"sequence_length is {sequence_length}; a window predicts at least 1 token")
        self.sequence_length = sequence_length
        self.seed = seed
        self._starts = (
            [align_windows(*shard, sequence_length) for shard in zip(document_starts, shard_tokens, strict=True)]
            if document_starts is not None
            else [np.arange(max(0, tokens - 1) // sequence_length) * sequence_length for tokens in shard_tokens]
        )
        windows_per_shard = [len(starts) for starts in self._starts]
        self._first_window = np.concatenate([[0], np.cumsum(windows_per_shard, dtype=np.int64)]).astype(np.int64)
        self.num_windows = int(self._first_window[-1])
        if not self.num_windows:
            longest = max(shard_tokens, default=0)
            raise InputError(
                f"the corpus is too small: {longest} tokens in its longest shard, but one window needs "
                f"{sequence_length + 1} (sequence_length {sequence_length} + 1); "
                "use a smaller sequence_length, or give more text"
            )

    def window_index(self, position: int) -> int:
        """The window at `position`, counted from 0, of the infinite order."""
        epoch, place = divmod(position, self.num_windows)
        return int(_permutation(self.seed, epoch, self.num_windows)[place])

    def locate(self, window: int) -> tuple[int, int]:
        """The shard of a window, and the index of the window's first token in the shard."""
        shard = int(np.searchsorted(self._first_window, window, side="right")) - 1
        return shard, int(self._starts[shard][window - int(self._first_window[shard])])


def align_windows(document_starts: Starts, num_tokens: int, sequence_length: int) -> Starts:
    """The starts of the aligned windows of one array, ascending; `document_starts` are ascending, from 0.

    A document longer than a window continues in further windows, each starting at the end of the previous one.
    """
    starts, start = [], 0
    while start + sequence_length + 1 <= num_tokens:
        starts.append(start)
        end = start + sequence_length
        # The document of the last target; if it began in this window, it starts the next one.
        cut = int(document_starts[np.searchsorted(document_starts, end, side="right") - 1])
        start = cut if cut > start else end
    return np.array(starts, dtype=np.int64)


def read_batch(
    arrays: Sequence[Tokens],
    order: WindowOrder,
    step: int,
    microbatch: int,
    batch_size: int,
    accumulation_steps: int,
    rank: int = 0,
    world_size: int = 1,
) -> Windows:
    """The tokens (B, T + 1) of one microbatch of one rank, int64.

    A step has `accumulation_steps` microbatches of `batch_size` windows, distributed to the ranks round-robin, as in
    nanoGPT. `microbatch` counts those of this rank: 0 <= microbatch < accumulation_steps / world_size. So a step trains
    on the same windows for any number of ranks. Raises ValueError if `accumulation_steps % world_size` is not 0.
    """
    if accumulation_steps % world_size:
        raise ValueError(
            f"accumulation_steps {accumulation_steps} is not divisible by {world_size} ranks; "
            "each rank needs the same number of microbatches"
        )
    if not (0 <= rank < world_size and 0 <= microbatch < accumulation_steps // world_size and step >= 0):
        raise ValueError(
            f"no microbatch {microbatch} of rank {rank} in step {step}: there are {world_size} ranks with "
            f"{accumulation_steps // world_size} microbatches each"
        )
    first = (step * accumulation_steps + microbatch * world_size + rank) * batch_size
    return read_windows(arrays, order, [order.window_index(first + row) for row in range(batch_size)])


def read_windows(arrays: Sequence[Tokens], order: WindowOrder, windows: Sequence[int]) -> Windows:
    """The tokens (B, T + 1) of the given windows, int64; inputs are [:, :-1] and targets [:, 1:]."""
    tokens = np.empty((len(windows), order.sequence_length + 1), dtype=np.int64)
    for row, window in enumerate(windows):
        shard, start = order.locate(window)
        tokens[row] = arrays[shard][start : start + order.sequence_length + 1]
    return tokens


def validation_windows(order: WindowOrder, num_windows: int) -> list[int]:
    """`num_windows` windows, or all if there are fewer, evenly spaced and the same on every call."""
    num_chosen = min(num_windows, order.num_windows)
    return [place * order.num_windows // num_chosen for place in range(num_chosen)]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_windows: int) -> npt.NDArray[np.int64]:
    """The order of one epoch, from a counter-based generator (Philox) with (seed, epoch) as its key.

    Needs 8 bytes a window. (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.)
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(num_windows)
