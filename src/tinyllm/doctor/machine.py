"""Describes this machine: versions, device, threads, free memory and free disk space."""

import platform
from dataclasses import dataclass
from pathlib import Path

from tinyllm import storage
from tinyllm.machine.memory import available_memory_bytes
from tinyllm.version import __version__


@dataclass(frozen=True)
class Machine:
    """The machine as a run would find it."""

    tinyllm: str
    python: str
    pytorch: str
    device: str
    num_threads: int
    memory_bytes: int | None
    """Memory that this process may still take; None if the system does not say."""
    disk_bytes: int
    """Free bytes on the disk of the output."""


def examine_machine(out: Path) -> Machine:
    """This machine, with the disk of `out`, a directory that may not exist."""
    import torch

    from tinyllm.machine.device import pick_device

    return Machine(
        tinyllm=__version__,
        python=platform.python_version(),
        pytorch=torch.__version__,
        device=str(pick_device()),
        num_threads=torch.get_num_threads(),
        memory_bytes=available_memory_bytes(),
        disk_bytes=storage.free_bytes(out),
    )
