"""The kernels as a library: compiled for this machine at their first use, kept in a user's cache folder, loaded.

`load` returns the reason if compiling or loading fails; training goes on without. Which kept files are trusted is up to
`machine/compiled_cache`.
"""

import ctypes
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

from tinyllm.machine.compiled_cache import CompiledCache, code_key, load_library
from tinyllm.machine.system import processor_features

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
OPTIONS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
FEATURES = {"amx_tile", "amx_bf16", "avx512_bf16", "avx512bw", "avx512vl"}
"""The required processor features, by their Linux names."""
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
"""How many tensors and sizes the functions of the library take, before the number of threads."""
DTYPES = (torch.bfloat16, torch.float32, torch.int64)

_library: ctypes.CDLL | None = None


def is_supported() -> bool:
    """Whether this machine has such a processor, and a compiler to use it."""
    return (
        sys.platform == "linux"
        and platform.machine() == "x86_64"
        and processor_features() >= FEATURES
        and bool(_compiler())
    )


def load(folder: Path, announce: Callable[[str], None]) -> str:
    """Loads the kernels from `folder`, or compiles them and puts them there; "" or the reason why they cannot be used.

    `announce` gets a line before a compilation, and one if `folder` cannot be written, is not the user's alone, or does
    not let code run.
    """
    global _library
    if _library is not None:
        return ""
    if not is_supported():
        return "the kernels need Linux, an x86 processor with AMX, and a C++ compiler"
    try:
        library = _find_or_make(folder, announce)
    except OSError as error:
        return f"the kernels cannot be made ready: {error}"
    if not library.prepare():
        return "the system does not lend the processor's tiles to this process"
    for name, (num_tensors, num_sizes) in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p] * num_tensors + [ctypes.c_int64] * num_sizes + [ctypes.c_int]
        function.restype = None
    _library = library
    return ""


def call(name: str, tensors: Sequence[Tensor | None], sizes: Sequence[int]) -> None:
    """Calls a kernel with `tensors`, as they lie in memory, and `sizes`; on PyTorch's number of threads."""
    assert _library is not None, "load comes first"
    assert all(x is None or (x.is_contiguous() and x.is_cpu and x.dtype in DTYPES) for x in tensors)
    pointers = (None if x is None else x.data_ptr() for x in tensors)
    getattr(_library, name)(*pointers, *sizes, torch.get_num_threads())


def _find_or_make(folder: Path, announce: Callable[[str], None]) -> ctypes.CDLL:
    """Loads the kept library, or compiles it, keeps it and loads it. Raises OSError."""

    def compile_now() -> bytes:
        announce("compiling kernels for this CPU, once: about five seconds")
        return _compile()

    path, content = CompiledCache(folder, announce).find_or_compile("kernels", _key(), ".so", compile_now)
    return load_library(path, content, announce)


def _compile() -> bytes:
    """The shared library as a file's content. Raises OSError with the compiler's first complaint."""
    with tempfile.TemporaryDirectory(prefix="tinyllm-compiled-") as scratch:
        made = Path(scratch) / "kernels.so"
        command = [_compiler() or "", *OPTIONS, "-o", str(made), *map(str, SOURCES)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["it said nothing"]
            raise OSError(f"the C++ compiler failed: {next((line for line in lines if 'error' in line), lines[0])}")
        return made.read_bytes()


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++")


def _key() -> str:
    """The key of the code: sources, compiler, options, features of the CPU."""
    compiler = subprocess.run([_compiler() or "", "--version"], capture_output=True, check=False, text=True).stdout
    return code_key((*SOURCES, *HEADERS), (compiler, *OPTIONS, *sorted(processor_features())))
