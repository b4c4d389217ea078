"""Casts of addresses, bits of floats, atomic operations, hints and calls for compiled code.

Each is an `@intrinsic` of Numba: LLVM instructions that a compiled function calls by name.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from tinyllm.kernels.decode.plan import PLAN

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_FLOAT = ir.FloatType()
_ADDRESS = ir.IntType(8).as_pointer()
_PLAN_RECORD = from_dtype(PLAN)
FEATURES = llvmlite.binding.get_host_cpu_features()


def call_llvm(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value, **options: Any) -> ir.Value:
    """Calls the LLVM intrinsic `name`."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **options)


def _make_cast(number: types.Type) -> Callable[..., Any]:
    """The intrinsic that casts an address (int64) to a pointer to `number`."""

    @intrinsic
    def pointer(typing_context, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(number)(types.int64), generate

    return pointer


bytes_, words, halves, integers, floats, doubles = (
    _make_cast(number) for number in (types.int8, types.int16, types.uint16, types.int64, types.float32, types.float64)
)
"""Casts of an address to a pointer to int8, int16, uint16 (bfloat16), int64, float32 and float64."""


@intrinsic
def plan_at(typing_context, address):
    """The record of `PLAN` at `address` (int64)."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return _PLAN_RECORD(types.int64), generate


@intrinsic
def like(typing_context, address, pointer):
    """`address` (int64) cast to the type of `pointer`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], arguments[1].type)

    return pointer(types.int64, pointer), generate


@intrinsic
def float_from_bits(typing_context, bits):
    """The float32 whose 32 bits are those of `bits`."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.trunc(arguments[0], _INT32), _FLOAT)

    return types.float32(types.int64), generate


@intrinsic
def power_of_two(typing_context, exponent):
    """2^`exponent` for a whole float32 from -126 to 127, by its bits; an int32 keeps vectors at full width."""

    def generate(context, builder, signature, arguments):
        biased = builder.add(builder.fptosi(arguments[0], _INT32), ir.Constant(_INT32, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INT32, 23)), _FLOAT)

    return types.float32(types.float32), generate


@intrinsic
def key_of(typing_context, number):
    """An int32 that sorts as its float32 does; the bits themselves for numbers >= 0."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], _INT32)
        sign = builder.ashr(bits, ir.Constant(_INT32, 31))
        return builder.xor(bits, builder.and_(sign, ir.Constant(_INT32, 2**31 - 1)))

    return types.int32(types.float32), generate


@intrinsic
def larger(typing_context, a, b):
    """The larger of two float32 that are not NaN; unlike `max`, LLVM vectorizes loops over it."""

    def generate(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b, flags=("fast",)), a, b, flags=("fast",))

    return types.float32(types.float32, types.float32), generate


@intrinsic
def atomic_add(typing_context, numbers, place, amount):
    """Adds to `numbers[place]` atomically; returns the value before."""

    def generate(context, builder, signature, arguments):
        numbers, place, amount = arguments
        return builder.atomic_rmw("add", builder.gep(numbers, [place]), amount, "acq_rel")

    return types.int64(numbers, types.int64, types.int64), generate


@intrinsic
def atomic_load(typing_context, numbers, place):
    """`numbers[place]`; writes that another thread made before its `atomic_store` are visible afterwards."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(builder.gep(arguments[0], [arguments[1]]), "acquire", 8)

    return types.int64(numbers, types.int64), generate


@intrinsic
def atomic_store(typing_context, numbers, place, value):
    """Sets `numbers[place]` after all earlier writes of this thread."""

    def generate(context, builder, signature, arguments):
        numbers, place, value = arguments
        builder.store_atomic(value, builder.gep(numbers, [place]), "release", 8)
        return context.get_dummy_value()

    return types.void(numbers, types.int64, types.int64), generate


@intrinsic
def pause(typing_context):
    """Tells the core that it waits in a loop, if the CPU has such a hint."""

    def generate(context, builder, signature, arguments):
        if FEATURES.get("sse2"):
            call_llvm(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def call(typing_context, address):
    """Calls the C function at `address` without arguments and drops its result."""

    def generate(context, builder, signature, arguments):
        function = builder.inttoptr(arguments[0], ir.FunctionType(_INT32, []).as_pointer())
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(types.int64), generate
