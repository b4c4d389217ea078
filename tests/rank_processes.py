"""The ranks of a run as processes: forked with the environment that torchrun gives, or started by torchrun itself."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from faults import trials

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
NEEDS_LOOPBACK = pytest.mark.skipif(
    sys.platform == "win32", reason="the loopback interface has no name for gloo on Windows"
)


def free_port() -> int:
    """A port of this machine that no process uses."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def as_rank(rank: int, num_ranks: int, port: int, function: Callable[..., object], arguments: Sequence[Any]) -> None:
    """Calls `function` in the environment of one rank."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME=LOOPBACK)
    function(*arguments)


class Ranks:
    """The ranks of one run, each a trial that calls `function(*arguments)`; `outputs` gets a file a rank."""

    def __init__(
        self, num_ranks: int, outputs: Path, arguments: Sequence[Any], function: Callable[..., object] = trials.command
    ) -> None:
        outputs.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.trials = [
            trials.Trial(outputs / f"{rank}.txt", as_rank, rank, num_ranks, port, function, arguments)
            for rank in range(num_ranks)
        ]

    def end(self, seconds: float = trials.PATIENCE_SECONDS) -> list[int]:
        """Waits for all ranks; returns their exit codes, negative for a signal."""
        deadline = time.monotonic() + seconds
        return [trial.end(max(0.0, deadline - time.monotonic())) for trial in self.trials]

    def text(self) -> str:
        """The output of all ranks, in their order."""
        return "".join(trial.text() for trial in self.trials)


def train_on(num_ranks: int, run: Path, arguments: Sequence[str]) -> str:
    """Trains on `num_ranks` ranks to the end, on one without a group; returns the output of all."""
    if num_ranks == 1:
        trial = trials.Trial(run.parent / f"{run.name}.txt", trials.command, *arguments)
        assert trial.end() == 0, trial.text()
        return trial.text()
    ranks = Ranks(num_ranks, run.parent / f"{run.name}-output", arguments)
    assert ranks.end() == [0] * num_ranks, ranks.text()
    return ranks.text()


def torchrun(options: Sequence[str], program: Sequence[str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs `program` by torchrun with `options`."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *program],
        env={**os.environ, "GLOO_SOCKET_IFNAME": LOOPBACK, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
