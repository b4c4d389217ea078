"""Attention for training in kernels of our own, for x86 processors with AMX: `tiles.cpp`.

They are compiled for this machine at their first use, and kept in a user's cache folder under a name that tells what
they were made from and what is in them. PyTorch knows them as operators, so `torch.compile` goes around them.

Shapes: B batch, T time, H query heads, K key/value heads, C channels of one head.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyllm import artifacts
from tinyllm.errors import ArtifactError

SOURCE = Path(__file__).with_name("tiles.cpp")
OPTIONS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
FEATURES = {"amx_tile", "amx_bf16", "avx512_bf16", "avx512bw", "avx512vl"}
"""What the processor must have, as Linux calls it."""


class _Loaded:
    """The compiled library, once it is loaded."""

    library: ctypes.CDLL | None = None


def is_supported() -> bool:
    """Whether this machine has such a processor, and a compiler to use it."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and _features() >= FEATURES and bool(_compiler())


def load(folder: Path, announce: Callable[[str], None]) -> str:
    """Loads the kernels from `folder`, or compiles them and puts them there; "" or the reason why they cannot be used.

    `announce` gets a line before a compilation, and one if `folder` cannot be written.
    """
    if _Loaded.library is not None:
        return ""
    if not is_supported():
        return "tiled attention needs Linux, an x86 processor with AMX, and a C++ compiler"
    path = _find(folder)
    with tempfile.TemporaryDirectory() as scratch:
        if path is None:
            announce("compiling tiled attention for this CPU, once: about three seconds")
            path = Path(scratch) / "tiles.so"
            command = [_compiler() or "", *OPTIONS, "-o", str(path), str(SOURCE)]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                return f"the C++ compiler failed: {(made.stderr.strip().splitlines() or ['it said nothing'])[0]}"
            try:
                path = _keep(path.read_bytes(), folder)
            except (ArtifactError, OSError) as error:
                announce(f"compiled attention is not kept, so the next start compiles again: {error}")
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            return f"compiled attention cannot be loaded: {error}"
    if not library.prepare():
        return "the system does not lend the processor's tiles to this process"
    _Loaded.library = library
    return ""


def _features() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++")


def _find(folder: Path) -> Path | None:
    """The kept library whose content is what its name says, if there is one."""
    for path in folder.glob(f"tiles-{_key()}-*.so"):
        try:
            if path.stem.rpartition("-")[2] == _digest(path.read_bytes()):
                return path
        except OSError:
            continue
    return None


def _keep(library: bytes, folder: Path) -> Path:
    path = folder / f"tiles-{_key()}-{_digest(library)}.so"
    artifacts.check_writable(path)
    with artifacts.exclusive(folder):
        artifacts.write_file(path, library)
    return path


def _key() -> str:
    """Changes whenever the code would."""
    version = subprocess.run([_compiler() or "", "--version"], capture_output=True, check=False).stdout
    facts = (
        SOURCE.read_bytes(),
        version,
        *(option.encode() for option in OPTIONS),
        *map(str.encode, sorted(_features())),
    )
    return _digest(b"\0".join(facts))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _call(name: str, tensors: list[Tensor], sizes: list[int]) -> None:
    """Calls a function of the library with addresses, then sizes, then the number of threads."""
    assert _Loaded.library is not None, "load comes first"
    assert all(tensor.is_contiguous() for tensor in tensors)
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    function: Any = _Loaded.library[name]
    function(*addresses, *map(ctypes.c_int64, sizes), torch.get_num_threads())


@torch.library.custom_op("tinyllm::attention", mutates_args=())
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention of `query` (B, T, H, C) and the others (B, T, K, C), all bfloat16.

    Gives the output (B, T, H, C) and, for the gradient, the logarithm of each softmax's sum (B, H, T).
    """
    batch, time, num_heads, channels = query.shape
    output, logs = torch.empty_like(query), torch.empty(batch, num_heads, time)
    _call("attention", [query, key, value, output, logs], [batch, time, num_heads, key.shape[2], channels])
    return output, logs


@attention.register_fake
def _(query: Tensor, _key: Tensor, _value: Tensor) -> tuple[Tensor, Tensor]:
    batch, time, num_heads, _ = query.shape
    return torch.empty_like(query), query.new_empty(batch, num_heads, time, dtype=torch.float32)


@torch.library.custom_op("tinyllm::attention_backward", mutates_args=())
def attention_backward(
    query: Tensor, key: Tensor, value: Tensor, output: Tensor, logs: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `query`, `key` and `value`, from what `attention` took and gave and the output's `gradient`."""
    batch, time, num_heads, channels = query.shape
    gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    tensors = [query, key, value, output, logs, gradient, *gradients]
    _call("attention_backward", tensors, [batch, time, num_heads, key.shape[2], channels])
    return gradients


@attention_backward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, _output: Tensor, _logs: Tensor, _gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
