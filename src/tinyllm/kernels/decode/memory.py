"""Casts of addresses, bits of floats, atomic operations, hints and calls for compiled code.

Each is an intrinsic of Numba: LLVM instructions that a compiled function calls by name.
"""

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.np.numpy_support import from_dtype

from tinyllm.kernels.decode.plan import MATRIX, PLAN

_INT32, _FLOAT = ir.IntType(32), ir.FloatType()
FEATURES = llvmlite.binding.get_host_cpu_features()
POINTER = None
"""The type of a parameter that takes a pointer to any numbers."""


def intrinsic(result: types.Type, *parameters: types.Type | None) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that makes an intrinsic of a function (builder, values of the parameters) -> the result's value."""

    def decorate(emit: Callable[..., Any]) -> Any:
        @functools.wraps(emit)
        def typed(typing_context, *arguments):
            def generate(context, builder, signature, values):
                value = emit(builder, *values)
                return context.get_dummy_value() if result == types.void else value

            kinds = [
                argument if kind is POINTER else kind for kind, argument in zip(parameters, arguments, strict=True)
            ]
            return result(*kinds), generate

        return extending.intrinsic(typed)

    return decorate


def call_llvm(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Calls the LLVM intrinsic `name`."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def bytes_per_number(pointer: ir.Value) -> int:
    """Bytes of each number that `pointer` points to."""
    number = pointer.type.pointee
    return 4 if number == _FLOAT else number.width // 8


def _make_cast(target: types.Type) -> Any:
    """The intrinsic that casts an address (int64) to `target`."""

    @extending.intrinsic
    def cast(typing_context, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(target))

        return target(types.int64), generate

    return cast


bytes_, words, halves, integers, floats, doubles = (
    _make_cast(types.CPointer(number))
    for number in (types.int8, types.int16, types.uint16, types.int64, types.float32, types.float64)
)
"""Casts of an address to a pointer to int8, int16, uint16 (bfloat16), int64, float32 and float64."""
plan_at, matrix_at = _make_cast(from_dtype(PLAN)), _make_cast(from_dtype(MATRIX))
"""The record of `PLAN`, or of `MATRIX`, at an address (int64)."""


@extending.intrinsic
def like(typing_context, address, pointer):
    """`address` (int64) cast to the type of `pointer`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], arguments[1].type)

    return pointer(types.int64, pointer), generate


@intrinsic(types.int64, POINTER)
def width_of(builder, pointer):
    """Bytes of each number that `pointer` points to: a constant, by which LLVM drops code for other types."""
    return ir.IntType(64)(bytes_per_number(pointer))


@intrinsic(types.float32, types.int64)
def float_from_bits(builder, bits):
    """The float32 whose 32 bits are those of `bits`."""
    return builder.bitcast(builder.trunc(bits, _INT32), _FLOAT)


@intrinsic(types.float32, types.float32)
def power_of_two(builder, exponent):
    """2^`exponent` for a whole float32 from -126 to 127, by its bits; an int32 keeps vectors at full width."""
    biased = builder.add(builder.fptosi(exponent, _INT32), _INT32(127))
    return builder.bitcast(builder.shl(biased, _INT32(23)), _FLOAT)


@intrinsic(types.int32, types.float32)
def key_of(builder, number):
    """An int32 that sorts as its float32 does; the bits themselves for numbers >= 0."""
    bits = builder.bitcast(number, _INT32)
    return builder.xor(bits, builder.and_(builder.ashr(bits, _INT32(31)), _INT32(2**31 - 1)))


@intrinsic(types.float32, types.float32, types.float32)
def larger(builder, a, b):
    """The larger of two float32 that are not NaN; unlike `max`, LLVM vectorizes loops over it."""
    return builder.select(builder.fcmp_ordered(">", a, b, flags=("fast",)), a, b, flags=("fast",))


@intrinsic(types.int64, POINTER, types.int64, types.int64)
def atomic_add(builder, numbers, place, amount):
    """Adds to `numbers[place]` atomically; returns the value before."""
    return builder.atomic_rmw("add", builder.gep(numbers, [place]), amount, "acq_rel")


@intrinsic(types.int64, POINTER, types.int64)
def atomic_load(builder, numbers, place):
    """`numbers[place]`; writes that another thread made before its `atomic_store` are visible afterwards."""
    return builder.load_atomic(builder.gep(numbers, [place]), "acquire", 8)


@intrinsic(types.void, POINTER, types.int64, types.int64)
def atomic_store(builder, numbers, place, value):
    """Sets `numbers[place]` after all earlier writes of this thread."""
    builder.store_atomic(value, builder.gep(numbers, [place]), "release", 8)


@intrinsic(types.void)
def pause(builder):
    """Tells the core that it waits in a loop, if the CPU has such a hint."""
    if FEATURES.get("sse2"):
        call_llvm(builder, "llvm.x86.sse2.pause", ir.VoidType())


@intrinsic(types.void, types.int64)
def call(builder, address):
    """Calls the C function at `address` without arguments and drops its result."""
    builder.call(builder.inttoptr(address, ir.FunctionType(_INT32, []).as_pointer()), [])
