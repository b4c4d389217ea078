"""Measures the memory available to this process, and turns failed allocations into one error line.

Linux grants more memory than it has and kills the process later. So sizes are compared before an allocation.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tinyllm.errors import ResourceError
from tinyllm.machine import system

if TYPE_CHECKING:
    import torch

_ALLOCATION = re.compile(r"(?:allocate (?:more than )?|buffer size: )([\d.,]+ ?(?:[KMGTPE]i?B|bytes)?)")

_TORCH_WORDS = ("allocate memory", "out of memory", "Invalid buffer size")
"""Parts of PyTorch's messages for a failed allocation on CPUs, on GPUs, and on Apple's GPUs."""


def available_memory_bytes() -> int | None:
    """Bytes that this process can still allocate, of the machine or its control group; None if unknown."""
    return system.free_memory_bytes()


def used_memory_bytes() -> int | None:
    """Peak bytes of this process: those allocated on its CUDA devices if it uses any, else its resident memory.

    None if the system does not report it. Loads no torch.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return sum(int(torch.cuda.max_memory_allocated(device)) for device in range(torch.cuda.device_count()))
    return system.peak_memory_bytes()


def device_memory_bytes(device: "torch.device") -> int | None:
    """Bytes that this process can still allocate on `device`: a CUDA device's own memory, else the machine's."""
    if device.type != "cuda":
        return available_memory_bytes()
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def check_memory(
    what: str, needed_bytes: int, advice: str, available_bytes: int | None = None, *, parameter: str = ""
) -> None:
    """Raises ResourceError if `what` needs more bytes than are available; `advice` ends the message.

    `available_bytes` replaces the measurement, for memory such as a GPU's. `parameter` is the first word of `what` if
    that is a parameter.
    """
    available = available_memory_bytes() if available_bytes is None else available_bytes
    if available is not None and needed_bytes > available:
        raise ResourceError(
            f"{what}: {show_bytes(needed_bytes)} of memory are needed, {show_bytes(available)} are available; {advice}",
            parameter=parameter,
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
