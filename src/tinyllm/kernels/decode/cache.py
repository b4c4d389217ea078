"""Machine code of the CPU engine: compiled once on a machine, then loaded without Numba.

Importing Numba takes longer than a short text, so it happens only if `machine/compiled_cache` has no code for this CPU.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from tinyllm.config import WeightsKind
from tinyllm.errors import UsageError
from tinyllm.machine.compiled_cache import CompiledCache, code_key
from tinyllm.progress import Note

ENTRY = "tinyllm_enter"
"""The one function that an object file exports."""
MODULES = ("blocks", "plan", "memory", "vectors", "forward", "selection", "choice", "program", "cache")
"""Modules whose source decides what the machine code is."""


class Kernels:
    """The compiled program for one kind of weights; call it with the address of a plan and a role."""

    def __init__(self, machine_code: bytes) -> None:
        """Loads an object file. The code stays in memory as long as this object."""
        self._engine = _load(machine_code)
        # Numba's calling convention: addresses for a result and an exception come first; this program has neither.
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self._enter: Callable[..., int] = prototype(self._engine.get_function_address(ENTRY))
        self._unused = (ctypes.c_void_p * 2)()
        self._places = tuple(ctypes.addressof(self._unused) + i * ctypes.sizeof(ctypes.c_void_p) for i in range(2))

    def __call__(self, plan: int, role: int) -> None:
        """Runs without Python's lock, so several threads can be inside."""
        self._enter(*self._places, plan, role)


def load_decode_kernels(weights_kind: WeightsKind, folder: Path, note: Note) -> Kernels:
    """The kernels for `weights_kind` (fp32, bf16 or int8), from the cache `folder` or compiled and kept there.

    `note` gets a line before a compilation, and one if the folder cannot be written or is not the user's alone.
    Raises UsageError if Numba is configured not to compile.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()

    def compile_now() -> bytes:
        _check_numba_compiles()
        note(f"compiling the {weights_kind} engine for this CPU, once: about ten seconds")
        return compile_kernels(weights_kind)

    return Kernels(CompiledCache(folder, note).find_or_compile(weights_kind, _key(), ".o", compile_now)[1])


def _check_numba_compiles() -> None:
    """Raises UsageError if Numba's compiler is switched off, as some do for debugging."""
    numba_config = sys.modules.get("numba.core.config")
    named = os.environ.get("NUMBA_DISABLE_JIT", "")
    if numba_config.DISABLE_JIT if numba_config else named.isdecimal() and int(named):
        raise UsageError(
            "NUMBA_DISABLE_JIT is set, so the CPU engine cannot be compiled; unset it, or use PyTorch's engine: "
            "dtype bfloat16"
        )


def compile_kernels(weights_kind: WeightsKind) -> bytes:
    """An object file of the program for this CPU: Numba translates it, LLVM optimizes it as a whole."""
    from numba.core import config as numba_config

    # Numba alone would optimize every function with all its callees, repeatedly: 20 s instead of 4.
    settings: Any = numba_config
    before, settings.OPT = settings.OPT, type(settings.OPT)(0)
    try:
        from tinyllm.kernels.decode.program import compile_entry

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


def _load(object_file: bytes) -> Any:
    module = llvm.parse_assembly("")
    module.triple = llvm.get_process_triple()
    engine = llvm.create_mcjit_compiler(module, _target_machine(module.triple))
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
    engine.finalize_object()
    return engine


def _target_machine(triple: str) -> Any:
    # LLVM avoids vectors of 512 bits, which slowed the clock of early CPUs; these loops gain from them on every CPU.
    features = f"{llvm.get_host_cpu_features().flatten()},-prefer-256-bit"
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, codemodel="jitdefault", jit=True
    )


def _check_self_contained(module: Any) -> None:
    """Asserts that the code calls only what every process has, since it is loaded without Numba's runtime."""
    called = {function.name for function in module.functions if function.is_declaration}
    foreign = {name for name in called if not name.startswith("llvm.") and name not in ("memset", "memcpy", "floorf")}
    assert not foreign, f"the compiled program calls {', '.join(sorted(foreign))}"


def _key() -> str:
    """The key of the code: sources, versions of the compilers, CPU."""
    sources = [Path(__file__).with_name(f"{name}.py") for name in MODULES]
    return code_key(sources, (version("numba"), llvmlite.__version__))
