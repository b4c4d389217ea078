"""Available memory from the system's files, and the error line for work that needs more."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tinyllm.errors import ResourceError
from tinyllm.machine import memory, system
from tinyllm.machine.memory import device_memory_bytes, shortages_named, used_memory_bytes

COUNT_PAGES = """
import sys, resource
from tinyllm.machine.system import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(5):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [bytearray(b"1") * 2**26 for _ in range(2)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 16 GB, 8 GB of them available; tests change its files."""
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "meminfo").write_text("MemTotal: 15625000 kB\nMemAvailable: 7812500 kB\n")
    monkeypatch.setattr(system, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(system, "CGROUPS", tmp_path)
    return tmp_path


def test_without_control_groups_the_machine_decides(machine: Path) -> None:
    assert memory.available_memory_bytes() == 8_000_000_000


def test_a_control_group_lowers_the_limit_and_its_file_cache_counts_as_free(machine: Path) -> None:
    (machine / "memory.max").write_text("2000\n")
    (machine / "memory.current").write_text("1500\n")
    (machine / "memory.stat").write_text("anon 700\ninactive_file 300\n")
    assert memory.available_memory_bytes() == 800


def test_an_old_control_group_is_read_too(machine: Path) -> None:
    (machine / "memory").mkdir()
    (machine / "memory" / "memory.limit_in_bytes").write_text("9000")
    (machine / "memory" / "memory.usage_in_bytes").write_text("8000")
    assert memory.available_memory_bytes() == 1000


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_a_group_without_limit_is_no_limit(machine: Path, limit: str) -> None:
    (machine / "memory.max").write_text(limit)
    (machine / "memory.current").write_text("1500")
    assert memory.available_memory_bytes() == 8_000_000_000


def test_unknown_memory_refuses_nothing(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert memory.available_memory_bytes() is None
    memory.check_memory("a model", 10**30, "use a smaller one")


def test_the_line_names_the_bytes_needed_and_those_available(machine: Path) -> None:
    memory.check_memory("a cache", 8_000_000_000, "use fewer")
    with pytest.raises(ResourceError) as caught:
        memory.check_memory("a cache", 8_000_000_001, "use fewer")
    assert str(caught.value) == (
        "a cache: 8.0 GB (8,000,000,001 bytes) of memory are needed, 8.0 GB (8,000,000,000 bytes) are available; "
        "use fewer"
    )


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [
        (999, "999 bytes"),
        (1000, "1.0 kB (1,000 bytes)"),
        (655_360_000_064, "655.4 GB (655,360,000,064 bytes)"),
        (10**400, "more than a billion EB"),
    ],
)
def test_bytes_are_shown_with_their_unit(num_bytes: int, shown: str) -> None:
    assert memory.show_bytes(num_bytes) == shown


def test_failed_allocations_of_every_library_give_one_line() -> None:
    with pytest.raises(MemoryError) as numpys:
        np.zeros(2**62, np.uint8)
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**62, dtype=torch.uint8)
    for error, size in ((numpys.value, "4.00 EiB"), (torchs.value, "4611686018427387904 bytes"), (MemoryError(), "")):
        line = memory.describe_shortage(error)
        assert line is not None
        assert line.startswith("the memory is not enough")
        assert size in line
        assert "\n" not in line
    assert memory.describe_shortage(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")) is not None
    assert memory.describe_shortage(RuntimeError("shapes do not fit")) is None
    assert memory.describe_shortage(OSError("cannot allocate memory")) is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory")
def test_kept_memory_is_not_requested_from_the_system_again() -> None:
    pages = {
        way: int(subprocess.run([sys.executable, "-c", COUNT_PAGES, way], capture_output=True, check=True).stdout)
        for way in ("keep", "give back")
    }
    assert pages["keep"] < 100 < pages["give back"]


def test_this_machine_reports_its_available_memory() -> None:
    limit = device_memory_bytes(torch.device("cpu"))
    assert limit is None if sys.platform == "darwin" else limit is not None and 2**28 < limit < 2**50


@pytest.mark.parametrize(
    ("allocate", "bytes_asked"),
    [(lambda: torch.empty(2**56, dtype=torch.float32), str(2**58)), (lambda: np.empty(2**58, np.uint8), "256. PiB")],
)
def test_a_failed_allocation_gives_one_line_with_its_bytes(allocate: Any, bytes_asked: str) -> None:
    message = f"memory is not enough: {bytes_asked}.* were asked for at once"
    with pytest.raises(ResourceError, match=message), shortages_named():
        allocate()


@pytest.mark.parametrize(
    ("error", "bytes_asked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ..."), ": 20.00 MiB were"),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 1.0 GB). Tried to allocate 8.00 GB"),
            ": 8.00 GB were",
        ),
        (RuntimeError("Invalid buffer size: 64.00 GB"), ": 64.00 GB were"),
        (MemoryError(), "memory is not enough, "),
    ],
)
def test_messages_of_each_device_are_recognised(error: Exception, bytes_asked: str) -> None:
    with pytest.raises(ResourceError, match=bytes_asked), shortages_named():
        raise error


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), shortages_named():
        torch.ones(2) + torch.ones(3)


def test_used_memory_is_resident_memory_unless_cuda_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert used_memory_bytes() == system.peak_memory_bytes()
    allocated = {0: 3_000, 1: 400}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(allocated))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", allocated.__getitem__)
    assert used_memory_bytes() == 3_400
