"""The place that torchrun gives a process, the group of the ranks, restarts, and one line for an error of all."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rank_processes import LOOPBACK, NEEDS_LOOPBACK, free_port
from tinyllm.errors import LostRankError, UsageError
from tinyllm.machine import launcher, ranks
from tinyllm.machine.device import pick_device
from tinyllm.machine.launcher import Launch, joined, read_launch

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE", "GROUP_RANK", "GROUP_WORLD_SIZE")
    for name in (*NAMES, *others):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the only rank of a launch."""
    values = ("0", "1", "0", "127.0.0.1", str(free_port()))
    for name, value in zip((*NAMES, "GLOO_SOCKET_IFNAME"), (*values, LOOPBACK), strict=True):
        monkeypatch.setenv(name, value)


def test_a_plain_process_joins_nothing_and_does_not_import_torch(tmp_path: Path) -> None:
    with joined():
        assert not ranks.has_group()
    assert (read_launch(), launcher.local_rank(), launcher.is_restart_of(tmp_path)) == (None, 0, False)
    program = (
        "import sys\nfrom tinyllm.machine import launcher\nwith launcher.joined(): assert 'torch' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_the_place_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert read_launch() == Launch(5, 8, 1, 0)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("GROUP_RANK", "1")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert read_launch() == Launch(5, 8, 1, 2, 1, 2)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UsageError, match="RANK is set and MASTER_PORT is not; start the ranks with torchrun"):
        read_launch()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="the environment names no rank: RANK=first, WORLD_SIZE=8"):
        read_launch()


@NEEDS_LOOPBACK
def test_one_rank_is_a_group_that_ends_with_the_block(one_rank: None) -> None:
    with joined():
        assert (ranks.has_group(), ranks.num_ranks(), ranks.is_first()) == (True, 1, True)
        with joined():
            assert ranks.once(lambda: "done") == "done"
        assert ranks.has_group()
    assert not ranks.has_group()


@NEEDS_LOOPBACK
def test_an_error_leaves_the_group_and_is_shown(one_rank: None) -> None:
    with pytest.raises(UsageError, match="wrong") as wrong, joined():
        raise UsageError("wrong")
    assert not ranks.has_group()
    assert not wrong.value.is_shown


class Store:
    """The keys of a launch, as a TCPStore has them."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}

    def set_timeout(self, limit: Any) -> None:
        assert limit == launcher.STORE_LIMIT

    def check(self, names: list[str]) -> bool:
        return all(name in self.keys for name in names)

    def set(self, name: str, value: str) -> None:
        self.keys[name] = value

    def add(self, name: str, number: int) -> int:
        self.keys[name] = self.keys.get(name, 0) + number
        return int(self.keys[name])


def test_one_rank_shows_an_error_and_a_cause_silences_lost_ranks() -> None:
    store = Store()
    errors = [UsageError("wrong"), UsageError("wrong"), LostRankError("gone"), OSError("disk"), LostRankError("gone")]
    assert [launcher._shows(error, store) for error in errors] == [True, False, False, True, False]
    store = Store()
    assert [launcher._shows(LostRankError(f"rank {rank}"), store) for rank in range(3)] == [True, False, False]


def test_an_error_is_shown_if_the_store_is_gone() -> None:
    class Gone(Store):
        def check(self, names: list[str]) -> bool:
            raise RuntimeError("failed to recv, got 0 bytes")

    assert launcher._shows(LostRankError("gone"), Gone())


def test_only_a_restart_of_a_run_that_began_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = Store()
    place = Launch(0, 2, 0, 0)
    monkeypatch.setattr(launcher, "_open_store", lambda launch: store)
    monkeypatch.setattr(launcher, "read_launch", lambda: place)
    assert not launcher.is_restart_of(tmp_path / "run")
    launcher.mark_started(tmp_path / "run")
    assert not launcher.is_restart_of(tmp_path / "run")
    place = Launch(0, 2, 0, 1)
    assert launcher.is_restart_of(tmp_path / "run")
    assert not launcher.is_restart_of(tmp_path / "other")


def test_each_rank_of_a_host_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "num_ranks", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launcher, "local_rank", lambda: 1)
    assert [pick_device(name) for name in ("auto", "cuda", "cpu")] == [
        torch.device("cuda", 1),
        torch.device("cuda", 1),
        torch.device("cpu"),
    ]
    with pytest.raises(UsageError, match="device cuda:0 is one device for all ranks; use auto, cuda or cpu"):
        pick_device("cuda:0")
    monkeypatch.setattr(launcher, "local_rank", lambda: 2)
    with pytest.raises(UsageError, match=r"device auto: rank 0 is number 3 on a host with 2 GPU\(s\); start one rank"):
        pick_device("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"device mps is one device for all ranks"):
        pick_device("mps")


@pytest.mark.slow
@NEEDS_LOOPBACK
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the names of threads are in /proc")
def test_the_threads_of_the_group_end_with_it(one_rank: None) -> None:
    """A thread of gloo that outlives the interpreter may abort the process."""
    program = """
from pathlib import Path
from tinyllm.machine import launcher
with launcher.joined():
    import torch, torch._dynamo
    torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], fused=True)
names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in names if "gloo" in name], names
"""
    subprocess.run([sys.executable, "-c", program], check=True)
