"""Measures the memory available to this process, and turns failed allocations into one error line.

Linux grants more memory than it has and kills the process later. So sizes are compared before an allocation.
"""

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tinyllm.errors import ResourceError

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Constants of glibc's <malloc.h>."""
MEMINFO = Path("/proc/meminfo")
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 2**60
"""Control groups without a limit report "max", or a number above this."""
_ALLOCATION = re.compile(r"(?:allocate (?:more than )?|buffer size: )([\d.,]+ ?(?:[KMGTPE]i?B|bytes)?)")

_TORCH_WORDS = ("allocate memory", "out of memory", "Invalid buffer size")
"""Parts of PyTorch's messages for a failed allocation on CPUs, on GPUs, and on Apple's GPUs."""


def available_memory_bytes() -> int | None:
    """Bytes that this process can still allocate, of the machine or its control group; None if unknown."""
    readings = [_read_machine(), _read_group_v2(CGROUPS), _read_group_v1(CGROUPS / "memory")]
    return min((reading for reading in readings if reading is not None), default=None)


def device_memory_bytes(device: "torch.device") -> int | None:
    """Bytes that this process can still allocate on `device`: a CUDA device's own memory, else the machine's."""
    if device.type != "cuda":
        return available_memory_bytes()
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def check_memory(what: str, needed_bytes: int, advice: str, available_bytes: int | None = None) -> None:
    """Raises ResourceError if `what` needs more bytes than are available; `advice` ends the message.

    `available_bytes` replaces the measurement, for memory such as a GPU's.
    """
    available = available_memory_bytes() if available_bytes is None else available_bytes
    if available is not None and needed_bytes > available:
        raise ResourceError(
            f"{what}: {show_bytes(needed_bytes)} of memory are needed, {show_bytes(available)} are available; {advice}"
        )


def describe_shortage(error: BaseException) -> str | None:
    """One line for an allocation that failed, from Python, NumPy or PyTorch; None for any other error."""
    text = " ".join(str(error).split())
    is_torch = isinstance(error, RuntimeError) and any(words in text for words in _TORCH_WORDS)
    if not (isinstance(error, MemoryError) or is_torch):
        return None
    size = _ALLOCATION.search(text)
    needed = f": {size[1].strip()} were asked for at once" if size else ""
    there = available_memory_bytes()
    available = f", {show_bytes(there)} are available" if there is not None else ""
    return f"the memory is not enough{needed}{available}; use a smaller model, batch or context"


@contextmanager
def shortages_named() -> Iterator[None]:
    """Replaces the exception of a failed allocation in its body by ResourceError, with the bytes."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        shortage = describe_shortage(error)
        if shortage is None:
            raise
        raise ResourceError(shortage) from error


def show_bytes(num_bytes: int) -> str:
    """`num_bytes` with its unit, such as `20.4 GB (20,401,094,656 bytes)`."""
    if num_bytes >= 10**27:
        return "more than a billion EB"
    if num_bytes < 1000:
        return f"{num_bytes} bytes"
    size, unit = float(num_bytes), ""
    for larger in ("kB", "MB", "GB", "TB", "PB", "EB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:,.1f} {unit} ({num_bytes:,} bytes)"


def _read_machine() -> int | None:
    fields = _read_fields(MEMINFO)
    return fields["MemAvailable:"] * 1024 if "MemAvailable:" in fields else None


def _read_group_v2(folder: Path) -> int | None:
    return _left_in_group(folder / "memory.max", folder / "memory.current", folder / "memory.stat", "inactive_file")


def _read_group_v1(folder: Path) -> int | None:
    used = folder / "memory.usage_in_bytes"
    return _left_in_group(folder / "memory.limit_in_bytes", used, folder / "memory.stat", "total_inactive_file")


def _left_in_group(limit: Path, used: Path, statistics: Path, reclaimable: str) -> int | None:
    """Bytes left below a control group's limit; inactive pages of files count as free."""
    try:
        limit_bytes, used_bytes = int(limit.read_text()), int(used.read_text())
    except (OSError, ValueError):
        return None  # no such group, or "max": no limit
    if limit_bytes > UNLIMITED_BYTES:
        return None
    return max(0, limit_bytes - used_bytes + _read_fields(statistics).get(reclaimable, 0))


def _read_fields(path: Path) -> dict[str, int]:
    """Name -> number for each line of a file of the kernel; empty if the file does not exist."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def keep_freed_memory() -> None:
    """Sets glibc to keep freed memory in the process; no effect on other systems.

    By default glibc returns large blocks to the system, which clears every page on the next allocation. For a model of
    8.5 M parameters that is 40,000 pages an update, a fifth of its time.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def peak_memory_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
