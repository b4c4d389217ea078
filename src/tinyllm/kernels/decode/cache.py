"""Machine code for the CPU engine: compiled once on a machine, then loaded from a user's cache folder without Numba.

Importing Numba takes longer than a whole short text, so it happens only when nothing fitting is cached. The key of a
cached file covers what the code depends on: our sources, the compilers' versions, the CPU's name and features. Which
files are trusted is up to `machine/compiled_cache`. Any number of processes may compile at once: each works with what
it compiled.

The program is two object files, so that two cores compile it: a pass for one kind of weights, and choices for all.
"""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import llvmlite
import llvmlite.binding as llvm

from tinyllm import storage
from tinyllm.config import WeightsKind
from tinyllm.errors import UsageError
from tinyllm.machine.compiled_cache import CompiledCache, key_of
from tinyllm.machine.device import num_available_cores

ENTRY = "tinyllm_enter"
"""The one function of each object file that others see."""
Part = WeightsKind | Literal["choices"]
SOURCES = (
    "blocks.py",
    "plan.py",
    "memory.py",
    "vectors.py",
    "forward.py",
    "selection.py",
    "choice.py",
    "program.py",
    "cache.py",
)
ENDING = ".o"
COMPILE_HERE = "import sys; from tinyllm.kernels.decode import cache; cache.compile_for_another(*sys.argv[1:])"
"""What a process that helps is given to run."""

_numba_settings_lock = threading.Lock()
"""Numba's settings belong to the whole process: two threads must not put back what the other one set."""


class Kernels:
    """The compiled program for one kind of weights; call it with the address of a plan and a role."""

    def __init__(self, machine_code: bytes, choices: bytes) -> None:
        """Loads two object files. The code lives as long as this does."""
        self._engines = [_load(content) for content in (machine_code, choices)]
        enter, self.choose = (engine.get_function_address(ENTRY) for engine in self._engines)
        # Numba's own convention: places for a result and an exception come first; this program has neither.
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self._enter: Callable[..., int] = prototype(enter)
        self._unused = (ctypes.c_void_p * 2)()
        self._places = tuple(ctypes.addressof(self._unused) + i * ctypes.sizeof(ctypes.c_void_p) for i in range(2))

    def __call__(self, plan: int, role: int) -> None:
        """Runs without Python's lock, so several threads can be inside."""
        self._enter(*self._places, plan, role)


def load_decode_kernels(weights_kind: WeightsKind, folder: Path, announce: Callable[[str], None]) -> Kernels:
    """The kernels for `weights_kind` (fp32, bf16 or int8), from `folder` or compiled and put there.

    `announce` gets a line before a compilation, and one if the folder cannot be written or is not the user's alone.
    Raises UsageError where Numba is told not to compile.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    key, cache = _key(), CompiledCache(folder, announce)
    wanted: tuple[Part, ...] = (weights_kind, "choices")
    parts = {part: found[1] for part in wanted if (found := cache.find(part, key, ENDING))}
    missing = [part for part in wanted if part not in parts]
    if missing:
        _check_numba_compiles()
        announce(f"compiling the {weights_kind} engine for this CPU, once: about ten seconds")
        compiled = compile_parts(missing, announce)
        parts |= compiled
        for part, content in compiled.items():
            if cache.keep(part, key, ENDING, content) is None:
                break
    return Kernels(*(parts[part] for part in wanted))


def _check_numba_compiles() -> None:
    """Raises UsageError where Numba's compiler is switched off, as some do for debugging."""
    numba_config = sys.modules.get("numba.core.config")
    named = os.environ.get("NUMBA_DISABLE_JIT", "")
    if numba_config.DISABLE_JIT if numba_config else named.isdecimal() and int(named):
        raise UsageError(
            "NUMBA_DISABLE_JIT is set, so the CPU engine cannot be compiled; unset it, or use PyTorch's engine: "
            "dtype bfloat16"
        )


def compile_parts(parts: Sequence[Part], announce: Callable[[str], None]) -> dict[Part, bytes]:
    """Object files of all `parts`; where there is a second core, the last of several by a process of its own."""
    compiled: dict[Part, bytes] = {}
    if len(parts) > 1 and num_available_cores() > 1:
        part = parts[-1]
        try:
            with TemporaryDirectory(prefix="tinyllm-compiled-") as folder:
                path = Path(folder) / "part.o"
                with _start_compiler(part, path) as process:
                    try:
                        compiled = {part: compile_kernels(part) for part in parts[:-1]}
                        complaint = process.communicate()[1]
                    finally:
                        process.kill()
                if process.returncode == 0:
                    compiled[part] = path.read_bytes()
                else:
                    lines = complaint.decode(errors="replace").splitlines()
                    announce(_alone(part, lines[-1] if lines else f"it ended with {process.returncode}"))
        except OSError as error:
            announce(_alone(part, error.strerror))
    return compiled | {part: compile_kernels(part) for part in parts if part not in compiled}


def _start_compiler(part: Part, path: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable or "python", "-P", "-c", COMPILE_HERE, part, _key(), str(path)]
    # Not by its standard output: what a user's Python prints when it starts is no machine code.
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=pipe)


def _alone(part: Part, reason: object) -> str:
    return f"a second process could not compile the {part}, so this one does: {reason}"


def compile_for_another(part: Part, key: str, path: str) -> None:
    """Writes the object file of `part` to `path`, for a process whose sources have that `key`."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if key != _key():
        sys.exit(f"it would compile other sources, those in {Path(__file__).parent}")
    storage.write_file(Path(path), compile_kernels(part))


def compile_kernels(part: Part) -> bytes:
    """An object file with a part of the program for this CPU. Numba translates it, LLVM optimizes it as a whole."""
    from numba.core import config as numba_config

    # By itself Numba optimizes every function with all that it calls, again and again on the way up: 20 s, not 4.
    settings: Any = numba_config
    with _numba_settings_lock:
        before, settings.OPT = settings.OPT, type(settings.OPT)(0)
        try:
            from tinyllm.kernels.decode import choice, program

            entry = choice.compile_entry() if part == "choices" else program.compile_entry(part)
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
    """Changes whenever the code would."""
    sources = (Path(__file__).parent.joinpath(name).read_bytes() for name in SOURCES)
    cpu = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    versions = (version("numba"), llvmlite.__version__)
    return key_of([*sources, *(fact.encode() for fact in (*versions, *cpu))])
