"""Calls kernels from Python: the compiled program is reached by one function, and tests need each kernel alone."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from tinyllm.kernels.decode import forward as forward_module
from tinyllm.kernels.decode import memory as memory_module
from tinyllm.kernels.decode import program as program_module
from tinyllm.kernels.decode import selection as selection_module
from tinyllm.kernels.decode import vectors as vectors_module
from tinyllm.kernels.decode.plan import Plan, new_plan

Function = TypeVar("Function", bound=Callable[..., Any])
forward: Any = forward_module
memory: Any = memory_module
program: Any = program_module
selection: Any = selection_module
vectors: Any = vectors_module
"""The modules without types: those of compiled functions are Numba's."""
Array = npt.NDArray[Any]


def njit(function: Function) -> Function:
    """`function` compiled by Numba at its first call."""
    return cast(Function, numba.njit(function))


def njit_with(*signature: str, **options: bool) -> Callable[[Function], Function]:
    """A decorator that compiles for a signature, at once, or with Numba's options."""

    def decorate(function: Function) -> Function:
        compiler: Any = numba.njit
        return cast(Function, compiler(*signature, **options)(function))

    return decorate


def callable_kernel(kernel: Any) -> Callable[..., Any]:
    """`kernel` as a function of the plan and its other arguments."""

    @njit
    def run(address: int, *arguments: Any) -> Any:
        return kernel(memory.plan_at(address), *arguments)

    return lambda plan, *arguments: run(plan.ctypes.data, *arguments)


def plan_of(**fields: Any) -> Plan:
    """A plan with these numbers, and the addresses of these arrays, which the caller keeps alive."""
    plan = new_plan()
    for name, value in fields.items():
        plan[name] = value.ctypes.data if isinstance(value, np.ndarray) else value
    return plan


def random_floats(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def padded_columns(x: npt.NDArray[np.float32], columns: int) -> npt.NDArray[np.float32]:
    """`x` (rows, D) with zeros up to `columns`."""
    return np.pad(x, ((0, 0), (0, columns - x.shape[1])))
