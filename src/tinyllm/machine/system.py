"""Every call that only some operating systems have, each with a fall-back for the others.

Linux, macOS and Windows are supported. No other module imports `fcntl`, `msvcrt` or `resource`, or reads `/proc`.
Nothing here knows what a file or a number is used for.
"""

import ctypes
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]
    import msvcrt

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

MEMINFO = Path("/proc/meminfo")
CGROUPS = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")
LOCKS = Path("/proc/locks")
UNLIMITED_BYTES = 2**60
"""Control groups without a limit report "max", or a number above this."""

IS_WINDOWS = sys.platform == "win32"
"""Windows removes and renames no open file, and replaces no directory by a rename."""
OPEN_OWN_FILE = sum({getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY")})
"""Flags of `os.open` for a file of ours: not inherited, not through a link, bytes unchanged; as far as they exist."""
OPEN_UNKNOWN_FILE = OPEN_OWN_FILE | getattr(os, "O_NONBLOCK", 0)
"""The same flags for a path that may be a pipe: opening it does not wait for a writer."""

_CONTENTION = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
_READ_LOCK = threading.Lock()
_NO_FOLDER_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LOCKED_BYTE = 2**30
"""Position of the byte that Windows locks: a locked byte cannot be read, so it lies past the content."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Constants of glibc's <malloc.h>."""
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100
"""Constants of Linux's renameat2."""


def try_lock_file(descriptor: int) -> bool:
    """Locks an open file until it is closed; False if another opening of it holds the lock."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            position = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(descriptor, position, os.SEEK_SET)
    except OSError as error:
        if error.errno in _CONTENTION:
            return False
        raise
    return True


def sees_lock(path: Path) -> bool | None:
    """Whether a process of this machine holds the lock of a file, without touching the lock; None if it is unknown.

    Only Linux tells. Files are compared by their inode alone: btrfs and overlays name another device there.
    """
    try:
        inode, lines = path.stat().st_ino, LOCKS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = [line.split() for line in lines]
    return any(each[1] == "FLOCK" and each[5].rpartition(":")[2] == str(inode) for each in fields if len(each) == 8)


def lock_folder(folder: Path) -> int | None:
    """Waits for the lock of a folder itself; returns its descriptor, whose closing frees the lock.

    Returns None on systems that open no folder (Windows). A network file system that locks no folder gives a
    descriptor without a lock.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_FOLDER_LOCKS:
            os.close(descriptor)
            raise
    return descriptor


def sync_file(path: Path) -> None:
    """Makes a file's content durable. Windows demands a file that is open for writing."""
    with path.open("r+b" if IS_WINDOWS else "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> bool:
    """Makes the names inside a folder durable; False on Windows, whose file system does so itself."""
    if IS_WINDOWS:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def read_at(descriptor: int, num_bytes: int, position: int) -> bytes:
    """Up to `num_bytes` of an open file from `position`; fewer at its end. Threads may share the file."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, num_bytes, position)
    with _READ_LOCK:
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.read(descriptor, num_bytes)


def exchange_names(first: Path, second: Path) -> bool:
    """Swaps two names in one step; False if the system or the file system has no such call (Linux has)."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(second))


def num_usable_cores() -> int:
    """Number of cores that this process may use; all cores of the machine if the system has no affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_features() -> set[str]:
    """The processor's features by their Linux names, such as `avx2`; empty on other systems."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def user_id() -> int | None:
    """Number of the user of this process; None on Windows, which protects profiles by access lists."""
    return os.getuid() if hasattr(os, "getuid") else None


def library_from_memory(content: bytes) -> ctypes.CDLL | None:
    """Loads a shared library without a file; None if the system has no files in memory (Linux has)."""
    if not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("tinyllm-library")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def free_memory_bytes() -> int | None:
    """Bytes that this process can still allocate, of the machine or its control group; None if unknown (macOS)."""
    if sys.platform == "win32":
        return _windows_memory("GlobalMemoryStatusEx")
    readings = [_read_machine(), _read_group_v2(CGROUPS), _read_group_v1(CGROUPS / "memory")]
    return min((reading for reading in readings if reading is not None), default=None)


def peak_memory_bytes() -> int | None:
    """Peak resident memory of this process in bytes; None if the system does not report it."""
    if resource is not None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return _windows_memory("K32GetProcessMemoryInfo") if sys.platform == "win32" else None


def keep_freed_memory() -> None:
    """Sets glibc to keep freed memory in the process; no effect on other systems.

    By default glibc returns large blocks to the system, which clears every page on the next allocation. For a model of
    8.5 M parameters that is 40,000 pages an update, a fifth of its time.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def bound_memory(num_bytes: int) -> None:
    """Bounds the address space of this process: what exceeds it raises MemoryError. Windows has no such bound."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """The system ends this process if the block takes longer, in processor time. Windows does not."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def run_in_fork(work: Callable[[], object]) -> int:
    """Runs `work` in a forked process; returns its status, not 0 if it raised an error or was killed.

    Without fork (Windows) it runs in this process, and its error is raised.
    """
    if not hasattr(os, "fork"):
        work()
        return 0
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def _windows_memory(call: str) -> int | None:
    """Free memory of the machine, or peak memory of this process: bytes from `call` of kernel32; None if it fails."""
    kernel: Any = ctypes.CDLL("kernel32")
    if call == "GlobalMemoryStatusEx":
        # MEMORYSTATUSEX: two 32-bit fields, then seven of 64 bits; the second of those is the free memory.
        status = (ctypes.c_uint64 * 8)(64)
        return status[2] if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    # PROCESS_MEMORY_COUNTERS: two 32-bit fields, then eight of a pointer's size; the first of those is the peak.
    counters = (ctypes.c_size_t * 9)(72)
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    return counters[1] if kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), 72) else None


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
