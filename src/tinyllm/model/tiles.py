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
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tinyllm import artifacts
from tinyllm.errors import ArtifactError

SOURCE = Path(__file__).with_name("tiles.cpp")
OPTIONS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
FEATURES = {"amx_tile", "amx_bf16", "avx512_bf16", "avx512bw", "avx512vl"}
"""What the processor must have, as Linux calls it."""
SIGNATURES = {"attention": (5, 5), "attention_backward": (9, 5)}
"""How many tensors and sizes the functions of the library take, before the number of threads."""


_library: ctypes.CDLL | None = None


def is_supported() -> bool:
    """Whether this machine has such a processor, and a compiler to use it."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and _features() >= FEATURES and bool(_compiler())


def load(folder: Path, announce: Callable[[str], None]) -> str:
    """Loads the kernels from `folder`, or compiles them and puts them there; "" or the reason why they cannot be used.

    `announce` gets a line before a compilation, and one if `folder` cannot be written.
    """
    global _library
    if _library is not None:
        return ""
    if not is_supported():
        return "tiled attention needs Linux, an x86 processor with AMX, and a C++ compiler"
    try:
        kept = _find(folder)
        library = ctypes.CDLL(str(kept)) if kept else _make(folder, announce)
    except OSError as error:
        return f"tiled attention cannot be made ready: {error}"
    if not library.prepare():
        return "the system does not lend the processor's tiles to this process"
    for name, (num_tensors, num_sizes) in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p] * num_tensors + [ctypes.c_int64] * num_sizes + [ctypes.c_int]
        function.restype = None
    _library = library
    return ""


def _make(folder: Path, announce: Callable[[str], None]) -> ctypes.CDLL:
    """Compiles the library, keeps it in `folder` if that can be written, and loads it. Raises OSError."""
    announce("compiling tiled attention for this CPU, once: about three seconds")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "tiles.so"
        command = [_compiler() or "", *OPTIONS, "-o", str(made), str(SOURCE)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["it said nothing"]
            raise OSError(f"the C++ compiler failed: {next((line for line in lines if 'error' in line), lines[0])}")
        try:
            path = folder / f"tiles-{_key()}-{_digest(made.read_bytes())}.so"
            artifacts.check_writable(path)
            with artifacts.exclusive(folder):
                artifacts.write_file(path, made.read_bytes())
        except (ArtifactError, OSError) as error:
            if _find(folder) is None:  # else another process was faster
                announce(f"compiled attention is not kept, so the next start compiles again: {error}")
        return ctypes.CDLL(str(made))


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
    try:
        candidates = sorted(folder.glob(f"tiles-{_key()}-*.so"))
        return next((path for path in candidates if path.stem.endswith(_digest(path.read_bytes()))), None)
    except OSError:
        return None


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


def _call(name: str, tensors: Sequence[Tensor], sizes: Sequence[int]) -> None:
    assert _library is not None, "load comes first"
    assert all(tensor.is_contiguous() and tensor.dtype in (torch.bfloat16, torch.float32) for tensor in tensors)
    getattr(_library, name)(*(tensor.data_ptr() for tensor in tensors), *sizes, torch.get_num_threads())


@torch.library.custom_op("tinyllm::attention", mutates_args=(), device_types="cpu")
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention of `query` (B, T, H, C) and the others (B, T, K, C), all bfloat16.

    Gives the output (B, T, H, C) and, for the gradient, the logarithm, to base 2, of each softmax's sum (B, H, T).
    """
    assert query.dtype == key.dtype == value.dtype == torch.bfloat16
    batch, time, num_heads, channels = query.shape
    output, logs = torch.empty_like(query), query.new_empty(batch, num_heads, time, dtype=torch.float32)
    _call("attention", [query, key, value, output, logs], [batch, time, num_heads, key.shape[2], channels])
    return output, logs


@attention.register_fake
def _(query: Tensor, _key: Tensor, _value: Tensor) -> tuple[Tensor, Tensor]:
    batch, time, num_heads, _ = query.shape
    return torch.empty_like(query), query.new_empty(batch, num_heads, time, dtype=torch.float32)


@torch.library.custom_op("tinyllm::attention_backward", mutates_args=(), device_types="cpu")
def attention_backward(
    query: Tensor, key: Tensor, value: Tensor, output: Tensor, logs: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `query`, `key` and `value`, from what `attention` took and gave and the output's `gradient`."""
    assert gradient.dtype == torch.bfloat16
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
