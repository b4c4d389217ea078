"""The processes of one training run, its ranks, and what only the first of them does.

Without an initialized `torch.distributed` group there is one rank, and every function here returns at once. This
module does not import torch: a program without torch has no group.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tinyllm.errors import LostRankError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
BUCKET_BYTES = 2**25
"""Largest exchange of several tensors; it is copied."""


def rank() -> int:
    """The number of this process in its run, from 0."""
    group = _group()
    return 0 if group is None else int(group.get_rank())


def num_ranks() -> int:
    """The number of processes of the run."""
    group = _group()
    return 1 if group is None else int(group.get_world_size())


def has_group() -> bool:
    """Whether this process has joined a group of ranks."""
    return _group() is not None


def is_first() -> bool:
    """Whether this process does what is done once a run: lock, log, save, sample."""
    return rank() == 0


def once(function: Callable[[], T]) -> T:
    """Calls `function` on the first rank alone; returns its result on every rank.

    The result travels pickled. An error is raised on the first rank, and as LostRankError on the others. An exit, as
    after a second signal, waits for nobody: the others see that the first rank has ended.
    """
    group = _group()
    if group is None:
        return function()
    if not is_first():
        problem, result = broadcast(None)
        if problem is not None:
            lost = LostRankError(f"the first rank failed: {problem}")
            lost.is_shown = True
            raise lost
        return result  # type: ignore[no-any-return]
    try:
        result = function()
    except Exception as error:
        broadcast((f"{type(error).__name__}: {error}", None))
        raise
    broadcast((None, result))
    return result


def broadcast(value: Any) -> Any:
    """The `value` of the first rank, on every rank; it travels pickled."""
    group = _group()
    if group is None:
        return value
    values = [value]
    with exchange():
        group.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: T) -> list[T]:
    """The `value` of every rank in the order of the ranks, on every rank; each travels pickled."""
    group = _group()
    if group is None:
        return [value]
    values: list[Any] = [None] * num_ranks()
    with exchange():
        group.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Waits until every rank is here."""
    group = _group()
    if group is not None:
        with exchange():
            group.barrier()


def add_up(tensors: "Iterable[Tensor]") -> None:
    """Replaces each tensor by its sum over the ranks, in place.

    Small tensors of one kind travel together: each exchange has a fixed cost.
    """
    group = _group()
    if group is None:
        return
    import torch

    with exchange():
        for bucket in _in_buckets(tensors):
            if len(bucket) == 1:
                group.all_reduce(bucket[0])
                continue
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            group.all_reduce(flat)
            for tensor, total in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(total.view(tensor.shape))


def _in_buckets(tensors: "Iterable[Tensor]") -> "Iterator[list[Tensor]]":
    """`tensors` in their order, in lists of one dtype and device and of at most `BUCKET_BYTES`, or of one tensor."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        fits = size + tensor.nbytes <= BUCKET_BYTES
        if bucket and not (fits and (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


@contextmanager
def exchange() -> Iterator[None]:
    """Raises LostRankError if the body cannot reach the other ranks, usually because one has ended."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(error) from error


@contextmanager
def exchanging_passes() -> Iterator[None]:
    """Raises LostRankError for the errors of exchanges alone: passes of a sharded model raise others too."""
    try:
        yield
    except RuntimeError as error:
        if _group() is None or not re.search(r"gloo|nccl|connection|peer", str(error), re.IGNORECASE):
            raise
        raise _lost(error) from error


def _lost(error: RuntimeError) -> LostRankError:
    return LostRankError(
        f"rank {rank()} lost another rank of the run, which was killed or cut off: {_reason(error)}",
        hint="go on from the last checkpoint with `resume=True`",
    )


def _reason(error: RuntimeError) -> str:
    """The first sentence of an error of gloo or NCCL, without its place in the source."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    return re.sub(r"^\[\S+:\d+\] ", "", first_line).partition(". ")[0]


def _group() -> Any:
    """The module `torch.distributed` if it has a group; None for a single process."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed
