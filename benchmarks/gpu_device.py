"""The device of the GPU benchmarks: its option, its peak rate and its memory."""

import argparse
import gc

import torch

from tinyllm.doctor.devices import DEVICES

NO_GPU = (
    "this benchmark needs an NVIDIA GPU; --device cpu --quick runs its code on a small model, which measures nothing"
)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Adds --device and --quick."""
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to run the code without a GPU.")
    parser.add_argument("--quick", action="store_true", help="A tiny model and few steps.")


def check_device(parser: argparse.ArgumentParser, name: str) -> torch.device:
    """The device of `name`; without such a GPU the program ends with one line and exit code 2."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.exit(2, f"{NO_GPU}\n")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def device_title(device: torch.device) -> str:
    """The name of `device` for the reader."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def peak_flops(title: str) -> float | None:
    """The peak of dense bfloat16 products of the GPU with the driver's name `title`; None if it is not known."""
    words = title.lower().replace(" ", "").replace("-", "")
    # The longest name first: "l40s" is no "l4".
    found = (DEVICES[name] for name in sorted(DEVICES, key=len, reverse=True) if name in words)
    device = next(found, None)
    return device.flops_per_second if device else None


def synchronize(device: torch.device) -> None:
    """Waits until the GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_memory(device: torch.device) -> None:
    """Frees unused memory of the GPU, and counts its peak from zero."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that tensors held since `reset_memory`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
