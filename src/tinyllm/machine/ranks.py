"""The processes of one training run, its ranks, and what only the first of them does.

Without an initialized `torch.distributed` group there is one rank, and every function here returns at once. This
module does not import torch: a program without torch has no group.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tinyllm.errors import TinyllmError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """The number of this process in its run, from 0."""
    group = _group()
    return 0 if group is None else int(group.get_rank())


def num_ranks() -> int:
    """The number of processes of the run."""
    group = _group()
    return 1 if group is None else int(group.get_world_size())


def is_first() -> bool:
    """Whether this process does what is done once a run: lock, log, save, evaluate, sample."""
    return rank() == 0


def once(function: Callable[[], T]) -> T:
    """Calls `function` on the first rank alone; returns its result on every rank.

    The result travels pickled. An error is raised on the first rank, and as TinyllmError on the others.
    """
    group = _group()
    if group is None:
        return function()
    if not is_first():
        problem, result = broadcast(None)
        if problem is not None:
            raise TinyllmError(f"the first rank failed: {problem}")
        return result  # type: ignore[no-any-return]
    try:
        result = function()
    except BaseException as error:
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
    with _exchange():
        group.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: T) -> list[T]:
    """The `value` of every rank in the order of the ranks, on every rank; each travels pickled."""
    group = _group()
    if group is None:
        return [value]
    values: list[Any] = [None] * num_ranks()
    with _exchange():
        group.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Waits until every rank is here."""
    group = _group()
    if group is not None:
        with _exchange():
            group.barrier()


def add_up(tensors: "Iterable[Tensor]") -> None:
    """Replaces each tensor by its sum over the ranks, in place."""
    group = _group()
    if group is None:
        return
    with _exchange():
        for tensor in tensors:
            group.all_reduce(tensor)


@contextmanager
def _exchange() -> Iterator[None]:
    """Raises TinyllmError if the body cannot reach the other ranks, usually because one has ended."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[:1]
        raise TinyllmError(
            f"rank {rank()} lost the other ranks of the run: {''.join(reason)}",
            hint="see the lines of the other ranks, and go on with `resume=True`",
        ) from error


def _group() -> Any:
    """The module `torch.distributed` if it has a group; None for a single process."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed
