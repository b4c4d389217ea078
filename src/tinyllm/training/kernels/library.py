"""The kernels as a library: compiled for this machine at their first use, kept in a user's cache folder, loaded.

What is kept has a name that tells what it was made from and what is in it. What cannot be had is told with its reason;
training goes on without.
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

from tinyllm import storage
from tinyllm.errors import ArtifactError

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
OPTIONS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
FEATURES = {"amx_tile", "amx_bf16", "avx512_bf16", "avx512bw", "avx512vl"}
"""What the processor must have, as Linux calls it."""
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
    return sys.platform == "linux" and platform.machine() == "x86_64" and _features() >= FEATURES and bool(_compiler())


def load(folder: Path, announce: Callable[[str], None]) -> str:
    """Loads the kernels from `folder`, or compiles them and puts them there; "" or the reason why they cannot be used.

    `announce` gets a line before a compilation, and one if `folder` cannot be written.
    """
    global _library
    if _library is not None:
        return ""
    if not is_supported():
        return "the kernels need Linux, an x86 processor with AMX, and a C++ compiler"
    try:
        kept = _find(folder)
        library = ctypes.CDLL(str(kept)) if kept else _make(folder, announce)
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


def _make(folder: Path, announce: Callable[[str], None]) -> ctypes.CDLL:
    """Compiles the library, keeps it in `folder` if that can be written, and loads it. Raises OSError."""
    announce("compiling kernels for this CPU, once: about five seconds")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "kernels.so"
        command = [_compiler() or "", *OPTIONS, "-o", str(made), *map(str, SOURCES)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["it said nothing"]
            raise OSError(f"the C++ compiler failed: {next((line for line in lines if 'error' in line), lines[0])}")
        try:
            path = folder / f"kernels-{_key()}-{_digest(made.read_bytes())}.so"
            storage.check_writable(path)
            with storage.exclusive(folder):
                storage.write_file(path, made.read_bytes())
        except (ArtifactError, OSError) as error:
            if _find(folder) is None:  # else another process was faster
                announce(f"compiled kernels are not kept, so the next start compiles again: {error}")
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
        candidates = sorted(folder.glob(f"kernels-{_key()}-*.so"))
        return next((path for path in candidates if path.stem.endswith(_digest(path.read_bytes()))), None)
    except OSError:
        return None


def _key() -> str:
    """Changes whenever the code would."""
    version = subprocess.run([_compiler() or "", "--version"], capture_output=True, check=False).stdout
    facts = (
        *(path.read_bytes() for path in (*SOURCES, *HEADERS)),
        version,
        *(option.encode() for option in OPTIONS),
        *map(str.encode, sorted(_features())),
    )
    return _digest(b"\0".join(facts))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
