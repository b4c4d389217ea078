"""The processes that torchrun started for one run: their group, their restarts, and one line for an error.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in every process. A process without them is
plain: nothing here does anything then, and torch is not imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tinyllm.errors import LostRankError, TinyllmError, UsageError
from tinyllm.machine import heartbeat, ranks
from tinyllm.machine.signals import absorb_termination

EXCHANGE_LIMIT = timedelta(hours=1)
"""Longest wait for the other ranks: the first one may save, sample or measure meanwhile."""
STORE_LIMIT = timedelta(seconds=10)
"""Longest wait for the store at the end, when its host may be gone."""


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that torchrun started."""

    rank: int
    num_ranks: int
    local_rank: int
    """The number of this process on its host, from 0."""
    num_restarts: int
    """The number of times that torchrun has started all ranks again."""
    host: int = 0
    """The number of this host, from 0."""
    num_hosts: int = 1


def read_launch() -> Launch | None:
    """The place that torchrun gave this process; None for a plain process. Raises UsageError for half a place."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT", "GROUP_RANK", "GROUP_WORLD_SIZE")
    try:
        launch = Launch(*(int(os.environ.get(name, "1" if name.endswith("SIZE") else "0")) for name in names))
    except ValueError:
        found = ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)
        raise UsageError(f"the environment names no rank: {found}; start the ranks with torchrun") from None
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(f"RANK is set and {missing[0]} is not; start the ranks with torchrun, or unset RANK")
    return launch


def local_rank() -> int:
    """The number of this rank on its host, from 0."""
    launch = read_launch()
    return 0 if launch is None else launch.local_rank


@contextmanager
def joined() -> Iterator[None]:
    """Makes torchrun's processes one group during the block; a plain process runs the block alone.

    An error that leaves the block is marked as shown on every rank but one, so that the user reads one line.
    """
    launch = read_launch()
    if launch is None or ranks.has_group():
        yield
        return
    import torch

    # Its functions take the group of the moment of this import as a default. Imported later, by torch.optim, they
    # would keep the destroyed group and its threads, which abort the process at its end.
    import torch.distributed.nn
    from torch import distributed
    from torch._C._distributed_c10d import PrefixStore

    store = _open_store(launch)
    backend = "gloo"
    if torch.cuda.is_available() and launch.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(launch.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    attempt = PrefixStore(f"tinyllm/attempt-{launch.num_restarts}", store)
    with ranks.exchange():
        distributed.init_process_group(
            backend, store=attempt, rank=launch.rank, world_size=launch.num_ranks, timeout=EXCHANGE_LIMIT
        )
    try:
        with _watched_hosts(launch):
            yield
    except BaseException as error:
        absorb_termination()
        if not _shows(error, attempt) and isinstance(error, TinyllmError):
            error.is_shown = True
        # NCCL would wait here for the other ranks, which may be in the middle of an exchange.
        if backend == "gloo":
            distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


@contextmanager
def _watched_hosts(launch: Launch) -> Iterator[None]:
    """Ends this process if another host falls silent during the block; one rank a host watches."""
    if launch.num_hosts == 1 or launch.local_rank:
        yield
        return
    from torch._C._distributed_c10d import PrefixStore

    def open_store() -> Any:
        return PrefixStore(f"tinyllm/hosts-{launch.num_restarts}", _open_store(launch))

    with heartbeat.beating(open_store, launch.host, launch.num_hosts):
        yield


def mark_started(run: Path) -> None:
    """Records that this launch has begun the run in `run`, for `is_restart_of`."""
    if (launch := read_launch()) is not None and ranks.is_first():
        _open_store(launch).set(_started(run), "")


def is_restart_of(run: Path) -> bool:
    """Whether torchrun restarted all ranks after this launch had begun the run in `run`.

    A launch that was refused has begun nothing: its restarts are refused in the same way.
    """
    launch = read_launch()
    return launch is not None and launch.num_restarts > 0 and bool(_open_store(launch).check([_started(run)]))


def _started(run: Path) -> str:
    return f"tinyllm/started/{run.absolute()}"


def _open_store(launch: Launch) -> Any:
    """The store of the launch. Under torchrun it outlives the ranks; else the first rank has it."""
    from torch._C._distributed_c10d import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with ranks.exchange():
        return TCPStore(host, port, launch.num_ranks, serves, EXCHANGE_LIMIT, wait_for_workers=False, multi_tenant=True)


def _shows(error: BaseException, store: Any) -> bool:
    """Whether this rank shows `error`: the first with this message, and a lost rank only if no other error is known."""
    store.set_timeout(STORE_LIMIT)
    try:
        if isinstance(error, LostRankError):
            return not store.check(["cause"]) and store.add("lost", 1) == 1
        store.set("cause", "")
        return bool(store.add(f"error/{error}", 1) == 1)
    except RuntimeError:
        return True  # The store went with its host.
