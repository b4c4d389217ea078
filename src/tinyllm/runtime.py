"""The machine under a run: device, precision, threads, random seeds, signals and memory.

It looks at the machine and sets what PyTorch keeps process-wide; it holds nothing itself.
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
"""Their numbers in glibc's <malloc.h>."""


def num_available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str = "auto") -> "torch.device":
    """The torch device for `auto` (cuda, else mps, else cpu) or for a name. Raises UsageError if it is not here."""
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
    """Whether it is worth loading PyTorch to look for a GPU: a driver is there, or this is a Mac that has one."""
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
    """What `stop_signals` gives: `signal_number` is None until SIGINT, SIGTERM or SIGHUP came."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.has_work_to_save = False
        """While False, the first signal ends the process at once: there is nothing that waiting would save."""
        self.is_listening = True
        """False outside the main thread, where Python lets nobody handle signals."""
        self.terminals = [number for number in (1, 2) if os.isatty(number)]
        """Descriptors of standard output and error that are terminals; they fail once the terminal is closed."""

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGHUP":
            self._leave_terminal()
            if self.signal_number is not None:
                return  # The kernel and the shell both send one when a terminal closes: nobody asked twice.
        if self.signal_number is not None or not self.has_work_to_save:
            # The second one means now: end at once, leaving the last whole checkpoint.
            _tell(f"\n{name}: stopped; a resumed run goes on from its last checkpoint")
            sys.exit(128 + number)
        self.signal_number = number
        _tell(f"\n{name}: finishing this step, saving and evaluating it (again to stop at once)")

    def _leave_terminal(self) -> None:
        """Sends output to nowhere in the place of a terminal that is closed, so that no later line fails."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in self.terminals:
            os.dup2(nowhere, number)
        os.close(nowhere)


def _tell(message: str) -> None:
    """One line on stderr, left out where it cannot be written: a handler's work must go on."""
    with suppress(OSError, RuntimeError, ValueError):  # closed, full, or interrupted in the middle of another line
        if sys.stderr is not None:
            print(message, file=sys.stderr)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Within it the first SIGINT, SIGTERM or SIGHUP is noted rather than obeyed; the second ends the process at once.

    The first one also ends it until `has_work_to_save` is set: compiling a model may take a minute. A SIGHUP that is
    ignored (nohup) stays ignored. Outside the main thread signals are left alone, and `is_listening` is False.
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
    """Whether torch.compile finds a C++ compiler: $CXX, or the platform's usual one."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")) is not None


def compiled(function: Function) -> Function:
    """`function` by torch.compile, for fixed shapes; the code is made at its first call."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own modules use what PyTorch has deprecated
        return cast(Function, torch.compile(function, dynamic=False))


def keep_freed_memory() -> None:
    """Lets this process keep the memory it frees, so that the next update has it at once; where that can be set.

    glibc gives large pieces back to the system, which clears them page by page when they are asked for again: 40,000
    pages in each update of a model of 8.5 M parameters, a fifth of its time.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again: tinyllm's own folder there. It need not exist yet.

    Raises UsageError where this user has no home and names no folder.
    """
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    if Path(named).is_absolute():  # a relative one would be a folder of wherever the program is started
        return Path(named) / "tinyllm"
    try:
        home = Path.home()
    except RuntimeError:
        raise UsageError("this user has no home folder for compiled code; name one in XDG_CACHE_HOME") from None
    by_platform = {"win32": home / "AppData" / "Local", "darwin": home / "Library" / "Caches"}
    return by_platform.get(sys.platform, home / ".cache") / "tinyllm"


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
