"""The machine under a run: device, precision, threads, random seeds, signals and memory.

It looks at the machine and sets what PyTorch keeps process-wide; it holds nothing itself.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from tinyllm.errors import UsageError

if TYPE_CHECKING:
    import torch


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


def seed_everything(seed: int) -> None:
    """Seeds PyTorch's generators on every device."""
    import torch

    torch.manual_seed(seed)


class StopRequest:
    """What `stop_signals` gives: `signal_number` is None until SIGINT or SIGTERM came."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.has_work_to_save = False
        """While False, the first signal ends the process at once: there is nothing that waiting would save."""

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None or not self.has_work_to_save:
            # The second one means now: end at once, leaving the last whole checkpoint.
            print(f"\n{signal.Signals(number).name}: stopped; go on with --resume auto", file=sys.stderr)
            sys.exit(128 + number)
        self.signal_number = number
        print(
            f"\n{signal.Signals(number).name}: finishing this step, then saving (again to stop at once)",
            file=sys.stderr,
        )


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Within it the first SIGINT or SIGTERM is noted rather than obeyed; the second one ends the process at once.

    So does the first one until `has_work_to_save` is set: compiling a model may take a minute.
    """
    request = StopRequest()
    before = {number: signal.signal(number, request._receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
