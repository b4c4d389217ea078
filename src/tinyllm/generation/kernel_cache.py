"""Machine code for the CPU engine: compiled once on a machine, then loaded from a user's cache folder without Numba.

Importing Numba takes longer than a whole short text, so it happens only when nothing fitting is cached. The key of a
cached file covers what the code depends on: our sources, the compilers' versions, the CPU's name and features. A file
is used only if its checksum is right. Any number of processes may do this at once: each works with what it compiled.
"""

import ctypes
import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from tinyllm import artifacts
from tinyllm.config import WeightsKind
from tinyllm.errors import ArtifactError

ENTRY = "tinyllm_enter"
SOURCES = (
    "cpu_plan.py",
    "cpu_memory.py",
    "cpu_vectors.py",
    "cpu_kernels.py",
    "cpu_selection.py",
    "cpu_sampling.py",
    "cpu_program.py",
    "kernel_cache.py",
)
DIGEST_BYTES = 32


class Kernels:
    """The compiled program for one kind of weights; call it with the address of a plan and a role."""

    def __init__(self, machine_code: bytes) -> None:
        """Loads an object file. The code lives as long as this does."""
        module = llvm.parse_assembly("")
        module.triple = llvm.get_process_triple()
        self._engine = llvm.create_mcjit_compiler(module, _target_machine(module.triple))
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
        self._engine.finalize_object()
        # Numba's own convention: places for a result and an exception come first; this program has neither.
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self._enter: Callable[..., int] = prototype(self._engine.get_function_address(ENTRY))
        self._unused = (ctypes.c_void_p * 2)()
        self._places = tuple(ctypes.addressof(self._unused) + i * ctypes.sizeof(ctypes.c_void_p) for i in range(2))

    def __call__(self, plan: int, role: int) -> None:
        """Runs without Python's lock, so several threads can be inside."""
        self._enter(*self._places, plan, role)


def load_kernels(weights_kind: WeightsKind, folder: Path, announce: Callable[[str], None]) -> Kernels:
    """The kernels for `weights_kind` (fp32, bf16 or int8), from `folder` or compiled and put there.

    `announce` gets a line before a compilation, and one if the folder cannot be written.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    path = folder / f"{weights_kind}-{_key()}.o"
    machine_code = _read(path)
    if machine_code is None:
        announce(f"compiling the {weights_kind} engine for this CPU, once: about ten seconds")
        machine_code = compile_kernels(weights_kind)
        try:
            artifacts.check_writable(path)
            with artifacts.exclusive(folder):
                artifacts.write_file(path, hashlib.sha256(machine_code).digest() + machine_code)
        except (ArtifactError, OSError) as error:
            if _read(path) is None:
                announce(f"the compiled engine is not kept, so the next start compiles again: {error}")
    return Kernels(machine_code)


def compile_kernels(weights_kind: WeightsKind) -> bytes:
    """An object file with the program for this CPU. Numba translates it, LLVM optimizes it once as a whole."""
    from numba.core import config as numba_config

    # By itself Numba optimizes every function with all that it calls, again and again on the way up: 20 s, not 4.
    settings: Any = numba_config
    before, settings.OPT = settings.OPT, type(settings.OPT)(0)
    try:
        from tinyllm.generation.cpu_program import compile_entry

        entry = compile_entry(weights_kind)
    finally:
        settings.OPT = before
    module = llvm.parse_assembly(entry.inspect_llvm())
    native_name = entry.native_name.removeprefix("cfunc.")
    for function in module.functions:
        if not function.is_declaration and function.name != native_name:
            function.linkage = llvm.Linkage.internal
    module.get_function(native_name).name = ENTRY
    machine = _target_machine(module.triple)
    options = llvm.create_pipeline_tuning_options(3)
    options.loop_vectorization = True
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    _check_self_contained(module)
    code: bytes = machine.emit_object(module)
    return code


def _target_machine(triple: str) -> Any:
    # LLVM avoids vectors of 512 bits where they used to slow the clock; these loops gain from them wherever there are.
    features = f"{llvm.get_host_cpu_features().flatten()},-prefer-256-bit"
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, codemodel="jitdefault", jit=True
    )


def _check_self_contained(module: Any) -> None:
    """The code is loaded where Numba's runtime is absent: it may call only what every process has."""
    called = {function.name for function in module.functions if function.is_declaration}
    foreign = {name for name in called if not name.startswith("llvm.") and name not in ("memset", "memcpy", "floorf")}
    assert not foreign, f"the compiled program calls {', '.join(sorted(foreign))}"


def _key() -> str:
    """Sixteen hexadecimal digits that change whenever the code would."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    cpu = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    for fact in (version("numba"), llvmlite.__version__, *cpu):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:16]


def _read(path: Path) -> bytes | None:
    """The cached machine code; None where there is none, or not all of it."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, machine_code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return machine_code if hashlib.sha256(machine_code).digest() == digest else None
