"""Compiles the C++ files for this machine at first use, caches the shared library, loads it and calls its functions.

`load` returns the reason if compiling or loading fails, and training continues without the kernels.
`machine/compiled_cache` stores and verifies the file. Dtypes and shapes are checked in `operators.py`.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence, Set
from pathlib import Path

import torch
from torch import Tensor

from tinyllm.machine.compiled_cache import CompiledCache, code_key, load_library
from tinyllm.machine.system import processor_features
from tinyllm.progress import Note

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
OPTIONS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
VECTOR_FEATURES = {"avx512_bf16", "avx512bw", "avx512vl"}
"""The processor features that rows.cpp needs, by their Linux names."""
FEATURES = VECTOR_FEATURES | {"amx_tile", "amx_bf16"}
"""The processor features that the whole library needs."""
SIGNATURES = {
    "attention": (5, 5),
    "attention_backward": (7, 5),
    "weight_gradient": (3, 4),
    "rms_norm": (5, 2),
    "rms_norm_backward": (7, 3),
    "swiglu": (3, 1),
    "swiglu_backward": (5, 2),
    "cross_entropy": (4, 2),
    "cross_entropy_backward": (5, 2),
}
"""Number of tensors and of sizes that each function takes; the number of threads is its last argument."""
DTYPES = (torch.bfloat16, torch.float32, torch.int64)

_library: ctypes.CDLL | None = None


def is_supported(features: Set[str] = FEATURES) -> bool:
    """Whether this is Linux on an x86 processor with `features`, with a C++ compiler."""
    return (
        sys.platform == "linux"
        and platform.machine() == "x86_64"
        and processor_features() >= features
        and bool(_compiler())
    )


def load(folder: Path, note: Note) -> str:
    """Loads the kernels from the cache `folder`, compiling them if needed; returns "", or the reason for a failure.

    `note` receives one line before a compilation. It also receives one if `folder` is not writable, is accessible
    to other users, or forbids execution.
    """
    global _library
    if _library is not None:
        return ""
    if not is_supported():
        return "the kernels need Linux, an x86 processor with AMX, and a C++ compiler"
    try:
        library = _find_or_make(folder, note)
    except OSError as error:
        return f"the kernels cannot be made ready: {error}"
    if not library.prepare():
        return "the system does not lend the processor's tiles to this process"
    _library = _declare_functions(library)
    return ""


def call(name: str, tensors: Sequence[Tensor | None], sizes: Sequence[int]) -> None:
    """Calls the kernel `name` with the data pointers of `tensors`, contiguous, and `sizes`, on PyTorch's threads."""
    assert _library is not None, "load comes first"
    assert all(x is None or (x.is_contiguous() and x.is_cpu and x.dtype in DTYPES) for x in tensors)
    pointers = (None if x is None else x.data_ptr() for x in tensors)
    getattr(_library, name)(*pointers, *sizes, torch.get_num_threads())


def _find_or_make(folder: Path, note: Note) -> ctypes.CDLL:
    """The library from the cache, or newly compiled. Raises OSError if compiling or loading fails."""

    def compile_now() -> bytes:
        note("compiling kernels for this CPU, once: about five seconds")
        return _compile()

    path, content = CompiledCache(folder, note).find_or_compile("kernels", _key(), ".so", compile_now)
    return load_library(path, content, note)


def _declare_functions(library: ctypes.CDLL) -> ctypes.CDLL:
    """`library` with the argument types of every function of `SIGNATURES` that it has."""
    for name, (num_tensors, num_sizes) in SIGNATURES.items():
        if hasattr(library, name):
            function = getattr(library, name)
            function.argtypes = [ctypes.c_void_p] * num_tensors + [ctypes.c_int64] * num_sizes + [ctypes.c_int]
            function.restype = None
    return library


def _compile(sources: Sequence[Path] = SOURCES) -> bytes:
    """The bytes of the shared library of `sources`. Raises OSError with the compiler's first error line."""
    with tempfile.TemporaryDirectory(prefix="tinyllm-compiled-") as scratch:
        made = Path(scratch) / "kernels.so"
        command = [_compiler() or "", *OPTIONS, "-o", str(made), *map(str, sources)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["it said nothing"]
            raise OSError(f"the C++ compiler failed: {next((line for line in lines if 'error' in line), lines[0])}")
        return made.read_bytes()


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++")


def _key() -> str:
    """The key of the code: sources, compiler, options, CPU."""
    compiler = subprocess.run([_compiler() or "", "--version"], capture_output=True, check=False, text=True).stdout
    return code_key((*SOURCES, *HEADERS), (compiler, *OPTIONS))
