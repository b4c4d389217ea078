"""Calls that only some systems have, and their fall-backs: tests take a system's modules away, or fake Windows."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyllm import storage
from tinyllm.machine import system
from tinyllm.machine.compiled_cache import complaint_about_folder
from tinyllm.machine.device import num_available_cores
from tinyllm.machine.memory import available_memory_bytes, check_memory

WITHOUT_POSIX = Path(__file__).parent / "without_posix.py"


def read_outcome(*arguments: str) -> str:
    """The output of a process in which `fcntl`, `resource`, /proc and CPU affinity do not exist."""
    done = subprocess.run([sys.executable, str(WITHOUT_POSIX), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in of msvcrt needs locks of Linux")
class TestWithoutPosix:
    def test_locks_exclude_a_second_holder(self, tmp_path: Path) -> None:
        assert read_outcome("lock", str(tmp_path)).splitlines() == [
            f"{tmp_path} is in use by another run; wait for it, or choose another place",
            f"{tmp_path / 'foreign' / '.lock'} is not a lock of tinyllm; remove it, or choose another place",
            "free",
        ]
        assert (tmp_path / ".lock").read_bytes() == b"tinyllm\n"

    def test_commits_replace_and_leave_nothing(self, tmp_path: Path) -> None:
        """Windows removes no open file: the process fails if one is removed."""
        read_outcome("commit", str(tmp_path))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "thing"]
        assert (tmp_path / "file").read_text() == "new"
        for name in ("empty", "thing"):
            storage.verify(tmp_path / name, "test")
        assert (tmp_path / "thing" / "notes.txt").read_text() == "mine"

    def test_the_machine_has_cores_and_no_known_memory(self) -> None:
        assert read_outcome("machine").split() == [str(os.cpu_count()), "None", "None", "None"]

    def test_a_model_is_saved_and_continues_a_text(self, make_model_dir: Callable[..., Path]) -> None:
        path = make_model_dir()
        generated = read_outcome("generate", str(path))
        assert generated == read_outcome("generate", str(path))
        assert generated.count("\n") == 1
        assert len(generated) > 5


def test_missing_calls_have_fall_backs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sched_getaffinity", "getuid", "memfd_create"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(system, "resource", None)
    monkeypatch.setattr(system, "fcntl", None)
    for name in ("MEMINFO", "CGROUPS", "CPUINFO"):
        monkeypatch.setattr(system, name, tmp_path / "missing")
    assert num_available_cores() == 3
    assert system.user_id() is None
    assert complaint_about_folder(tmp_path) == ""
    assert system.library_from_memory(b"") is None
    assert system.processor_features() == set()
    assert available_memory_bytes() is None
    assert system.peak_memory_bytes() is None
    check_memory("a model", 2**60, "use a smaller one")
    assert system.lock_folder(tmp_path) is None
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert num_available_cores() == 1


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_names_are_exchanged_on_linux_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert system.exchange_names(tmp_path / "a", tmp_path / "b") is False


class Kernel32:
    """A stand-in of Windows' kernel32 that fills the two structures as its documentation lays them out."""

    def __init__(self, succeeds: bool) -> None:
        self.succeeds = succeeds
        self.GetCurrentProcess: Any = lambda: 7

    def GlobalMemoryStatusEx(self, place: Any) -> int:
        fields = place._obj
        assert fields[0] == 64, "dwLength is the size of the structure"
        fields[1], fields[2] = 16_000_000_000, 5_000_000_000
        return self.succeeds

    def K32GetProcessMemoryInfo(self, process: Any, place: Any, size: int) -> int:
        fields = place._obj
        assert (process.value, fields[0], size) == (7, 72, ctypes.sizeof(fields))
        fields[1], fields[2] = 300_000_000, 200_000_000
        return self.succeeds


@pytest.mark.parametrize("succeeds", [True, False])
def test_windows_reports_free_and_peak_memory(monkeypatch: pytest.MonkeyPatch, succeeds: bool) -> None:
    monkeypatch.setattr(system, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Kernel32(succeeds))
    assert system.free_memory_bytes() == (5_000_000_000 if succeeds else None)
    assert system.peak_memory_bytes() == (300_000_000 if succeeds else None)


def test_this_system_reports_its_peak_memory() -> None:
    before = system.peak_memory_bytes()
    block = bytearray(os.urandom(2**20) * 64)
    after = system.peak_memory_bytes()
    assert before is not None
    assert after is not None
    assert before <= after
    assert after >= len(block)


def test_a_lock_of_an_open_file_is_freed_by_closing_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    first, second = (os.open(tmp_path / "file", os.O_RDWR | system.OPEN_OWN_FILE) for _ in range(2))
    try:
        assert system.try_lock_file(first)
        assert not system.try_lock_file(second)
        os.close(first)
        assert system.try_lock_file(second)
    finally:
        os.close(second)


def test_an_unknown_error_of_a_lock_is_raised() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        system.try_lock_file(1_000_000)


def test_a_system_without_any_file_lock_is_refused() -> None:
    """Two runs would write the same files there."""
    program = "import sys; sys.modules['fcntl'] = sys.modules['msvcrt'] = None\nimport tinyllm.machine.system"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_work_in_a_fork_tells_success_from_errors_and_kills(capfd: pytest.CaptureFixture[str]) -> None:
    assert system.run_in_fork(lambda: None) == 0
    assert system.run_in_fork(lambda: [][0]) != 0
    assert system.run_in_fork(lambda: os.kill(os.getpid(), 9)) != 0


def test_without_fork_work_runs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork", raising=False)
    processes: list[int] = []
    assert system.run_in_fork(lambda: processes.append(os.getpid())) == 0
    assert processes == [os.getpid()]
    with pytest.raises(ZeroDivisionError):
        system.run_in_fork(lambda: 1 / 0)
