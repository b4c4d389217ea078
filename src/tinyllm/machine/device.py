"""Queries the machine's devices and cores, and seeds PyTorch's random generators."""

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tinyllm.errors import UsageError
from tinyllm.machine import launcher, ranks, system

if TYPE_CHECKING:
    import torch


def num_available_cores() -> int:
    """Number of cores that this process may use."""
    return system.num_usable_cores()


def pick_device(name: str = "auto") -> "torch.device":
    """The torch device for `auto` (cuda, else mps, else cpu) or a name. Raises UsageError if it is not available.

    On several ranks cuda is one GPU for each rank of a host, and mps is left out.
    """
    import torch

    if ranks.num_ranks() > 1:
        return _pick_for_rank(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _refused(name, " is not a device", "use auto, cpu, cuda, cuda:N or mps") from None
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device.type not in available:
        raise _refused(name, " is not supported", "use auto, cpu, cuda, cuda:N or mps")
    if not available[device.type]:
        raise _refused(name, ": this machine or this build of PyTorch has none", "use `device=cpu` or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise _refused(name, f": this machine has {torch.cuda.device_count()} GPU(s), counted from 0")
    return device


def _pick_for_rank(name: str) -> "torch.device":
    """The device of this rank. Raises UsageError if the ranks of a host would share a GPU."""
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise _refused(name, " is one device for all ranks", "use auto, cuda or cpu")
    place, num_gpus = launcher.local_rank(), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place >= num_gpus:
        raise _refused(
            name,
            f": rank {ranks.rank()} is number {place + 1} on a host with {num_gpus} GPU(s)",
            "start one rank a GPU",
        )
    return torch.device("cuda", place)


def _refused(name: str, problem: str, hint: str = "") -> UsageError:
    return UsageError(f"device {name}{problem}", parameter="device", hint=hint)


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
