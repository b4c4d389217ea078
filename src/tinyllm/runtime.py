"""Device, threads, random seeds, signals and memory of the process.

Functions here query the machine and set process-wide state of PyTorch; the module holds no state.
"""

import ctypes
import os
import platform
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tinyllm.errors import UsageError

if TYPE_CHECKING:
    import torch

Function = TypeVar("Function", bound=Callable[..., Any])

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Constants of glibc's <malloc.h>."""


def num_available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str = "auto") -> "torch.device":
    """The torch device for `auto` (cuda, else mps, else cpu) or a name. Raises UsageError if it is not available."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name} is not a device; use auto, cpu, cuda, cuda:N or mps") from None
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device.type not in available:
        raise UsageError(f"--device {name} is not supported; use auto, cpu, cuda, cuda:N or mps")
    if not available[device.type]:
        raise UsageError(f"--device {name}: this machine or this build of PyTorch has none; use --device cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: this machine has {torch.cuda.device_count()} GPU(s), counted from 0")
    return device


def may_have_gpu() -> bool:
    """Whether this machine may have a GPU: a driver is installed, or it is an ARM Mac. Does not load PyTorch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvcuda.dll").exists()
    return any(Path(driver).exists() for driver in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


def seed_everything(seed: int) -> None:
    """Seeds PyTorch's generators on every device."""
    import torch

    torch.manual_seed(seed)


class StopRequest:
    """The state of `stop_signals`: `signal_number` is None until SIGINT, SIGTERM or SIGHUP arrives."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.has_work_to_save = False
        """While False, the first signal ends the process at once: there is no work to save."""
        self.is_listening = True
        """False outside the main thread, where Python allows no signal handlers."""
        self.terminals = [number for number in (1, 2) if os.isatty(number)]
        """Descriptors of standard output and error that are terminals; writing fails after the terminal closes."""

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGHUP":
            self._leave_terminal()
            if self.signal_number is not None:
                return  # The kernel and the shell each send one when a terminal closes: not a second request.
        if self.signal_number is not None or not self.has_work_to_save:
            # The second signal ends the process at once; the last whole checkpoint stays.
            saved = "goes on from its last checkpoint" if self.has_work_to_save else "begins where this one did"
            _print_line(f"\n{name}: stopped; a resumed run {saved}")
            sys.exit(128 + number)
        self.signal_number = number
        _print_line(f"\n{name}: finishing this step, saving and evaluating it (again to stop at once)")

    def _leave_terminal(self) -> None:
        """Redirects output from a closed terminal to the null device, so that later lines do not fail."""
        null = os.open(os.devnull, os.O_WRONLY)
        for number in self.terminals:
            os.dup2(null, number)
        os.close(null)


def _print_line(message: str) -> None:
    """Prints one line on stderr; ignores a failure, because a signal handler must finish."""
    with suppress(OSError, RuntimeError, ValueError):  # closed, full, or interrupted in the middle of another line
        if sys.stderr is not None:
            print(message, file=sys.stderr)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Records the first SIGINT, SIGTERM or SIGHUP in its body; a second one ends the process at once.

    Until `has_work_to_save` is set, the first signal ends the process too: compiling a model may take a minute.
    A SIGHUP that is ignored (nohup) stays ignored. Outside the main thread no handler is installed, and `is_listening`
    is False.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        request.is_listening = False
        yield request
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request._receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def has_cpp_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler: $CXX, or the platform's default."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")) is not None


def compiled(function: Function) -> Function:
    """`function` through torch.compile, for fixed shapes; compilation happens at the first call."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler itself uses deprecated parts of PyTorch
        return cast(Function, torch.compile(function, dynamic=False))


def keep_freed_memory() -> None:
    """Sets glibc to keep freed memory in the process; no effect on other systems.

    By default glibc returns large blocks to the system, which clears every page on the next allocation. For a model of
    8.5 M parameters that is 40,000 pages an update, a fifth of its time.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def cache_folder() -> Path:
    """The path of tinyllm's folder in the user's cache folder; it may not exist.

    Raises UsageError if the user has no home folder and XDG_CACHE_HOME is not set.
    """
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    if Path(named).is_absolute():  # a relative path would depend on the working directory
        return Path(named) / "tinyllm"
    try:
        home = Path.home()
    except RuntimeError:
        raise UsageError("this user has no home folder for compiled code; name one in XDG_CACHE_HOME") from None
    by_platform = {"win32": home / "AppData" / "Local", "darwin": home / "Library" / "Caches"}
    return by_platform.get(sys.platform, home / ".cache") / "tinyllm"


def peak_memory_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
