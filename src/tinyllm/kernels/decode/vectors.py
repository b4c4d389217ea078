"""Operations on vectors that plain loops do not reach: dot products of several rows, tiles, sums across lanes.

Each is an `@intrinsic` of Numba: LLVM instructions that a compiled function calls by name.

The dot products decide the speed. A token reads every weight once, so memory bandwidth is the limit. One core reads
1.6 x as much from four places at a time, prefetched 2 KB ahead, as from one place in order.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from tinyllm.kernels.decode.blocks import COLUMN_BLOCK, LANES, POSITION_BLOCK
from tinyllm.kernels.decode.memory import FEATURES, call_llvm

PREFETCH_BYTES = 2048

_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_FAST = ("fast",)

TILE_ROWS, TILE_INPUTS = (4, 4) if FEATURES.get("avx512f") else (3, 2)
"""Matrix rows and activation rows of one tile: as many as there are registers for their sums."""


def _load(builder: ir.IRBuilder, pointer: ir.Value, place: ir.Value, number: ir.Type, count: int) -> ir.Value:
    """`count` numbers from `pointer[place]` on, at any alignment."""
    vector = builder.bitcast(builder.gep(pointer, [place]), ir.VectorType(number, count).as_pointer())
    loaded = builder.load(vector)
    loaded.align = 1
    return loaded


def _store(builder: ir.IRBuilder, vector: ir.Value, pointer: ir.Value, place: ir.Value) -> None:
    stored = builder.store(vector, builder.bitcast(builder.gep(pointer, [place]), vector.type.as_pointer()))
    stored.align = 4


def _at(builder: ir.IRBuilder, start: ir.Value, index: ir.Value, stride: int) -> ir.Value:
    """`start` + `index` x `stride`."""
    return builder.add(start, builder.mul(index, ir.Constant(_INT64, stride)))


def _everywhere(builder: ir.IRBuilder, pointer: ir.Value, place: ir.Value) -> ir.Value:
    """A vector with the float at `pointer[place]` in each lane."""
    return _in_all_lanes(builder, builder.load(builder.gep(pointer, [place])))


def _prefetch(builder: ir.IRBuilder, pointer: ir.Value, place: ir.Value, num_bytes: int) -> None:
    """Prefetches the `num_bytes` that lie `PREFETCH_BYTES` after `pointer[place]`; harmless past the end."""
    address = builder.bitcast(builder.gep(pointer, [place]), _INT8.as_pointer())
    for line in range(0, num_bytes, 64):
        ahead = builder.gep(address, [ir.Constant(_INT64, PREFETCH_BYTES + line)])
        read, keep, data = (ir.Constant(_INT32, value) for value in (0, 3, 1))
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), ahead, read, keep, data)


def _add_products_of_int8(builder: ir.IRBuilder, total: ir.Value, weights: ir.Value, x: ir.Value) -> ir.Value:
    """`total` (16 int32) plus the products of 32 int8 `weights` and 32 int16 `x`, neighbours summed."""
    wide = builder.sext(weights, x.type)
    half_type = ir.VectorType(_INT16, LANES)
    sums = []
    for first in (0, LANES):
        half = ir.Constant(ir.VectorType(_INT32, LANES), list(range(first, first + LANES)))
        a, b = (builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), half) for v in (wide, x))
        assert a.type == half_type
        sums.append(_pair_products(builder, a, b))
    both = ir.Constant(ir.VectorType(_INT32, LANES), list(range(LANES)))
    return builder.add(total, builder.shuffle_vector(*sums, both))


def _pair_products(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Eight int32 sums of neighbouring products of 16 int16: one instruction with AVX2, a few without."""
    eight = ir.VectorType(_INT32, LANES // 2)
    if FEATURES.get("avx2"):
        return call_llvm(builder, "llvm.x86.avx2.pmadd.wd", eight, a, b)
    parts = []
    for odd in (0, 1):
        every_other = ir.Constant(eight, list(range(odd, LANES, 2)))
        parts.append(
            builder.mul(
                *(
                    builder.sext(builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), every_other), eight)
                    for v in (a, b)
                )
            )
        )
    return builder.add(*parts)


def _add_products_of_floats(builder: ir.IRBuilder, total: ir.Value, weights: ir.Value, x: ir.Value) -> ir.Value:
    """`total` (16 floats) plus the products of 16 `weights`, float32 or the upper halves of it, and 16 floats `x`."""
    if weights.type.element == _INT16:
        bits = ir.VectorType(_INT32, LANES)
        shift = ir.Constant(bits, [16] * LANES)
        weights = builder.bitcast(builder.shl(builder.zext(weights, bits), shift), x.type)
    return builder.fadd(total, builder.fmul(weights, x, flags=_FAST), flags=_FAST)


def _add_products_in_order(builder: ir.IRBuilder, total: ir.Value, weights: ir.Value, x: ir.Value) -> ir.Value:
    """As `_add_products_of_floats`, but LLVM may not change the order of additions."""
    if weights.type.element == _INT16:
        bits = ir.VectorType(_INT32, LANES)
        weights = builder.bitcast(builder.shl(builder.zext(weights, bits), ir.Constant(bits, [16] * LANES)), x.type)
    return call_llvm(builder, f"llvm.fmuladd.v{LANES}f32", total.type, weights, x, total)


def _dot_products(
    builder: ir.IRBuilder, num_rows: int, num_inputs: int, arguments: tuple[ir.Value, ...]
) -> list[ir.Value]:
    """A vector of partial sums for each product of a matrix row with an input; those of the first input come first.

    Arguments: weights, start, stride, columns, x, x_start. Rows are `stride` apart, inputs `columns`. Each lane sums
    every 16th column in order, whatever the number of rows and inputs.
    """
    weights, start, stride, columns, x, x_start = arguments
    number, whole = weights.type.pointee, weights.type.pointee == _INT8
    step = COLUMN_BLOCK if whole else LANES
    number_bytes = 4 if number == _FLOAT else number.width // 8
    add_products = _add_products_of_int8 if whole else _add_products_in_order
    zero = ir.Constant(ir.VectorType(_INT32 if whole else _FLOAT, LANES), None)

    def add_block(column: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        sums = list(totals)
        places = [builder.add(builder.add(x_start, column), _times(builder, columns, i)) for i in range(num_inputs)]
        inputs = [_load(builder, x, place, x.type.pointee, step) for place in places]
        for row in range(num_rows):
            place = builder.add(builder.add(start, column), _times(builder, stride, row))
            _prefetch(builder, weights, place, step * number_bytes)
            block = _load(builder, weights, place, number, step)
            for i, x_block in enumerate(inputs):
                sums[i * num_rows + row] = add_products(builder, totals[i * num_rows + row], block, x_block)
        return sums

    return _loop(builder, columns, step, [zero] * (num_rows * num_inputs), add_block)


def _make_dot(num_rows: int) -> Callable[..., Any]:
    """The intrinsic (weights, start, stride, columns, x, x_start) -> the products of x with rows `stride` apart."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: tuple[ir.Value, ...]) -> ir.Value:
        totals = _dot_products(builder, num_rows, 1, arguments)
        return cgutils.pack_array(builder, _sums_across(builder, totals))

    @intrinsic
    def dot(typing_context, weights, start, stride, columns, x, x_start):
        number = types.int64
        return types.UniTuple(types.float32, num_rows)(weights, number, number, number, x, number), generate

    return dot


@intrinsic
def dot_tile(typing_context, weights, start, stride, columns, x, x_start, tile, tile_start):
    """Products of `TILE_ROWS` matrix rows with `TILE_INPUTS` inputs, into `tile` (inputs, rows); 16 floats are written.

    Each product is the same to the last bit as that of `dot_four_rows` and `dot_one_row`.
    """

    def generate(context, builder, signature, arguments):
        *operands, tile, tile_start = arguments
        totals = _dot_products(builder, TILE_ROWS, TILE_INPUTS, tuple(operands))
        _store(builder, _summed_lanes(builder, _as_floats(builder, totals)), tile, tile_start)
        return context.get_dummy_value()

    number = types.int64
    return types.void(weights, number, number, number, x, number, tile, number), generate


def _times(builder: ir.IRBuilder, stride: ir.Value, index: int) -> ir.Value:
    return builder.mul(stride, ir.Constant(_INT64, index))


def _loop(
    builder: ir.IRBuilder,
    count: ir.Value,
    step: int,
    totals: list[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """A loop from 0 to `count` in steps, at least one; `body` maps a place and the totals to new totals."""
    entry, loop, done = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    place = builder.phi(_INT64)
    phis = [builder.phi(total.type) for total in totals]
    results = body(place, phis)
    following = builder.add(place, ir.Constant(_INT64, step))
    starts = [ir.Constant(_INT64, 0), *totals]
    for phi, first, after in zip([place, *phis], starts, [following, *results], strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(after, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    return results


@intrinsic
def score_block(typing_context, query, query_start, size, keys, start, scores, scores_start):
    """Writes the unscaled products of a query (C,) and a block of keys (C, 32) into `scores` (32,)."""

    def generate(context, builder, signature, arguments):
        query, query_start, size, keys, start, scores, scores_start = arguments
        halves = range(0, POSITION_BLOCK, LANES)

        def add_two_channels(channel, totals):
            sums = []
            for i, total in enumerate(totals):
                odd, half = divmod(i, len(halves))
                this = builder.add(channel, ir.Constant(_INT64, odd))
                place = builder.add(_at(builder, start, this, POSITION_BLOCK), ir.Constant(_INT64, halves[half]))
                number = _everywhere(builder, query, builder.add(query_start, this))
                sums.append(_add_products_of_floats(builder, total, _load(builder, keys, place, _FLOAT, LANES), number))
            return sums

        # Two sums for each position halve the wait for the preceding addition.
        zero = ir.Constant(ir.VectorType(_FLOAT, LANES), None)
        totals = _loop(builder, size, 2, [zero] * 4, add_two_channels)
        for half, (even, odd) in enumerate(zip(totals[:2], totals[2:], strict=True)):
            place = builder.add(scores_start, ir.Constant(_INT64, halves[half]))
            _store(builder, builder.fadd(even, odd, flags=_FAST), scores, place)
        return context.get_dummy_value()

    number = types.int64
    return types.void(query, number, number, keys, number, scores, number), generate


@intrinsic
def mix_block(typing_context, weights, weights_start, size, values, start, sums, sums_start):
    """Adds the weighted values (C, 32) of one block of positions to `sums` (C, 16), a partial sum in each lane."""

    def generate(context, builder, signature, arguments):
        weights, weights_start, size, values, start, sums, sums_start = arguments
        halves = [ir.Constant(_INT64, half) for half in range(0, POSITION_BLOCK, LANES)]
        factors = [_load(builder, weights, builder.add(weights_start, half), _FLOAT, LANES) for half in halves]

        def add_channel(channel, _):
            place = _at(builder, start, channel, POSITION_BLOCK)
            total = _load(builder, sums, _at(builder, sums_start, channel, LANES), _FLOAT, LANES)
            for half, factor in zip(halves, factors, strict=True):
                numbers = _load(builder, values, builder.add(place, half), _FLOAT, LANES)
                total = _add_products_of_floats(builder, total, numbers, factor)
            _store(builder, total, sums, _at(builder, sums_start, channel, LANES))
            return []

        _loop(builder, size, 1, [], add_channel)
        return context.get_dummy_value()

    number = types.int64
    return types.void(weights, number, number, values, number, sums, number), generate


@intrinsic
def sum_sixteen_vectors(typing_context, sums, start, result):
    """The sum of the lanes of each of the 16 vectors from `sums[start]` on, into `sums[result]` and the 15 after it."""

    def generate(context, builder, signature, arguments):
        sums, start, result = arguments
        places = [builder.add(start, ir.Constant(_INT64, i * LANES)) for i in range(LANES)]
        total = _summed_lanes(builder, [_load(builder, sums, place, _FLOAT, LANES) for place in places])
        _store(builder, total, sums, result)
        return context.get_dummy_value()

    return types.void(sums, types.int64, types.int64), generate


def _in_all_lanes(builder: ir.IRBuilder, number: ir.Value, num_lanes: int = LANES) -> ir.Value:
    """A vector with `number` in each lane."""
    vector = ir.VectorType(number.type, num_lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_INT32, num_lanes), [0] * num_lanes))


def _sums_across(builder: ir.IRBuilder, totals: list[ir.Value]) -> list[ir.Value]:
    """The sum of the lanes of each of up to 16 vectors, as numbers."""
    total = _summed_lanes(builder, _as_floats(builder, totals))
    return [builder.extract_element(total, ir.Constant(_INT32, i)) for i in range(len(totals))]


def _as_floats(builder: ir.IRBuilder, totals: list[ir.Value]) -> list[ir.Value]:
    """`totals` as float32: sixteen sums of up to 2^31 do not fit in one int32."""
    if totals[0].type.element == _FLOAT:
        return totals
    return [builder.sitofp(total, ir.VectorType(_FLOAT, LANES)) for total in totals]


def _summed_lanes(builder: ir.IRBuilder, totals: list[ir.Value]) -> ir.Value:
    """The vector whose lane i is the sum of the lanes of vector i, of up to 16.

    Lanes 1, 2, 4 and 8 apart are added in turn, so the order of summation does not depend on the number of vectors.
    """
    for distance in (1, 2, 4, 8):
        pairs = [totals[i : i + 2] for i in range(0, len(totals), 2)]
        totals = [_distant_sums(builder, pair[0], pair[-1], distance) for pair in pairs]
    return totals[0]


def _distant_sums(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, distance: int) -> ir.Value:
    """Lane l is the sum of lanes l and l ^ distance: of `b` if l & distance, else of `a`."""
    own = [lane + (LANES if lane & distance else 0) for lane in range(LANES)]
    other = [(lane ^ distance) + (LANES if lane & distance else 0) for lane in range(LANES)]
    masks = [ir.Constant(ir.VectorType(_INT32, LANES), lanes) for lanes in (own, other)]
    return builder.fadd(*(builder.shuffle_vector(a, b, mask) for mask in masks))


dot_four_rows = _make_dot(4)
dot_one_row = _make_dot(1)
