"""Operations on vectors that plain loops do not reach: dot products of several rows, tiles, sums across lanes.

Each is an intrinsic of Numba: LLVM instructions that a compiled function calls by name.

The dot products decide the speed. A token reads every weight once, so memory bandwidth is the limit. One core reads
1.6 x as much from four places at a time, prefetched 2 KB ahead, as from one place in order.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.types import UniTuple, float32, int64, void

from tinyllm.kernels.decode.blocks import COLUMN_BLOCK, LANES, POSITION_BLOCK
from tinyllm.kernels.decode.memory import FEATURES, POINTER, call_llvm, intrinsic

PREFETCH_BYTES = 2048

_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT = ir.FloatType()
_FLOATS, _INTEGERS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT32, LANES)

TILE_ROWS, TILE_INPUTS = (4, 4) if FEATURES.get("avx512f") else (3, 2)
"""Matrix rows and activation rows of one tile: as many as there are registers for their sums."""


def _load(builder: ir.IRBuilder, pointer: ir.Value, place: ir.Value, count: int = LANES) -> ir.Value:
    """`count` numbers from `pointer[place]` on, at any alignment."""
    vector = ir.VectorType(pointer.type.pointee, count)
    return builder.load(builder.bitcast(builder.gep(pointer, [place]), vector.as_pointer()), align=1)


def _store(builder: ir.IRBuilder, vector: ir.Value, pointer: ir.Value, place: ir.Value) -> None:
    builder.store(vector, builder.bitcast(builder.gep(pointer, [place]), vector.type.as_pointer()), align=4)


def _at(builder: ir.IRBuilder, start: ir.Value, index: ir.Value | int, stride: ir.Value | int = 1) -> ir.Value:
    """`start` + `index` x `stride`."""
    index, stride = (_INT64(number) if isinstance(number, int) else number for number in (index, stride))
    return builder.add(start, builder.mul(index, stride))


def _shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: Iterable[int]) -> ir.Value:
    """The vector of these lanes of `a`, and of `b` counted after them."""
    mask = [_INT32(lane) for lane in lanes]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, len(mask)), mask))


def _in_all_lanes(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """A vector with `number`, a float, in each lane."""
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, _INT32(0))
    return _shuffle(builder, one, one, [0] * LANES)


def _prefetch(builder: ir.IRBuilder, pointer: ir.Value, place: ir.Value, num_bytes: int) -> None:
    """Prefetches the `num_bytes` that lie `PREFETCH_BYTES` after `pointer[place]`; harmless past the end."""
    address = builder.bitcast(builder.gep(pointer, [place]), _INT8.as_pointer())
    for line in range(0, num_bytes, 64):
        ahead = builder.gep(address, [_INT64(PREFETCH_BYTES + line)])
        read, keep, data = _INT32(0), _INT32(3), _INT32(1)
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), ahead, read, keep, data)


@contextmanager
def _loop(builder: ir.IRBuilder, count: ir.Value, step: int = 1) -> Iterator[ir.Value]:
    """A loop from 0 to `count`, at least 1, in steps; what is emitted inside `with` is its body."""
    builder.assume(builder.icmp_signed(">", count, _INT64(0)))
    with cgutils.for_range_slice(builder, _INT64(0), count, _INT64(step)) as (place, _):
        yield place


def _add_products(builder: ir.IRBuilder, total: ir.Value, weights: ir.Value, x: ir.Value) -> None:
    """Adds to the vector at `total` the products of `weights` and `x`; LLVM may not change the order of additions.

    16 weights are float32, or bfloat16, the upper half of it. 32 weights are int8 and `x` int16; neighbours are summed.
    """
    before = builder.load(total)
    if weights.type.element == _INT8:
        wide, halves = builder.sext(weights, x.type), (range(LANES), range(LANES, 2 * LANES))
        sums = [_pair_products(builder, *(_shuffle(builder, v, v, half) for v in (wide, x))) for half in halves]
        builder.store(builder.add(before, _shuffle(builder, *sums, range(LANES))), total)
        return
    if weights.type.element == _INT16:
        shift = ir.Constant(_INTEGERS, [16] * LANES)
        weights = builder.bitcast(builder.shl(builder.zext(weights, _INTEGERS), shift), _FLOATS)
    builder.store(call_llvm(builder, f"llvm.fmuladd.v{LANES}f32", _FLOATS, weights, x, before), total)


def _pair_products(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Eight int32 sums of neighbouring products of 16 int16: one instruction with AVX2, a few without."""
    if FEATURES.get("avx2"):
        return call_llvm(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(_INT32, LANES // 2), a, b)
    products = builder.mul(builder.sext(a, _INTEGERS), builder.sext(b, _INTEGERS))
    return builder.add(*(_shuffle(builder, products, products, range(odd, LANES, 2)) for odd in (0, 1)))


def _dot_products(builder: ir.IRBuilder, num_rows: int, num_inputs: int, *arguments: ir.Value) -> ir.Value:
    """A vector of the products of matrix rows with inputs; those of the first input come first.

    Arguments: weights, start, stride, columns, x, x_start. Rows are `stride` apart, inputs `columns`. Each lane sums
    every 16th column in order, whatever the number of rows and inputs.
    """
    weights, start, stride, columns, x, x_start = arguments
    number, whole = weights.type.pointee, weights.type.pointee == _INT8
    step = COLUMN_BLOCK if whole else LANES
    num_bytes = step * (4 if number == _FLOAT else number.width // 8)
    zero = ir.Constant(_INTEGERS if whole else _FLOATS, None)
    totals = [cgutils.alloca_once_value(builder, zero) for _ in range(num_inputs * num_rows)]
    with _loop(builder, columns, step) as column:
        places = [_at(builder, builder.add(x_start, column), columns, i) for i in range(num_inputs)]
        inputs = [_load(builder, x, place, step) for place in places]
        for row in range(num_rows):
            place = _at(builder, builder.add(start, column), stride, row)
            _prefetch(builder, weights, place, num_bytes)
            block = _load(builder, weights, place, step)
            for i in range(num_inputs):
                _add_products(builder, totals[i * num_rows + row], block, inputs[i])
    sums = [builder.load(total) for total in totals]
    # Sixteen sums of up to 2^31 do not fit in one int32.
    return _summed_lanes(builder, [builder.sitofp(total, _FLOATS) for total in sums] if whole else sums)


def _make_dot(num_rows: int) -> Callable[..., Any]:
    """The intrinsic (weights, start, stride, columns, x, x_start) -> the products of x with rows `stride` apart."""

    @intrinsic(UniTuple(float32, num_rows), POINTER, int64, int64, int64, POINTER, int64)
    def dot(builder, weights, start, stride, columns, x, x_start):
        products = _dot_products(builder, num_rows, 1, weights, start, stride, columns, x, x_start)
        return cgutils.pack_array(builder, [builder.extract_element(products, _INT32(i)) for i in range(num_rows)])

    return dot


dot_four_rows, dot_one_row = _make_dot(4), _make_dot(1)


@intrinsic(void, POINTER, int64, int64, int64, POINTER, int64, POINTER, int64)
def dot_tile(builder, weights, start, stride, columns, x, x_start, tile, tile_start):
    """Products of `TILE_ROWS` matrix rows with `TILE_INPUTS` inputs, into `tile` (inputs, rows); 16 floats are written.

    Each product is the same to the last bit as that of `dot_four_rows` and `dot_one_row`.
    """
    products = _dot_products(builder, TILE_ROWS, TILE_INPUTS, weights, start, stride, columns, x, x_start)
    _store(builder, products, tile, tile_start)


@intrinsic(void, POINTER, int64, int64, POINTER, int64, POINTER, int64)
def score_block(builder, query, query_start, size, keys, start, scores, scores_start):
    """Writes the unscaled products of a query (C,) and a block of keys (C, 32) into `scores` (32,)."""
    halves = range(0, POSITION_BLOCK, LANES)
    # Two sums for each position halve the wait for the preceding addition.
    totals = [[cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, None)) for _ in halves] for _ in range(2)]
    with _loop(builder, size, 2) as channel:
        for odd in range(2):
            this = _at(builder, channel, odd)
            factor = _in_all_lanes(builder, builder.load(builder.gep(query, [builder.add(query_start, this)])))
            place = _at(builder, start, this, POSITION_BLOCK)
            for half, total in zip(halves, totals[odd], strict=True):
                _add_products(builder, total, _load(builder, keys, _at(builder, place, half)), factor)
    for half, even, odd in zip(halves, *totals, strict=True):
        score = builder.fadd(builder.load(even), builder.load(odd))
        _store(builder, score, scores, _at(builder, scores_start, half))


@intrinsic(void, POINTER, int64, int64, POINTER, int64, POINTER, int64)
def mix_block(builder, weights, weights_start, size, values, start, sums, sums_start):
    """Adds the weighted values (C, 32) of one block of positions to `sums` (C, 16), a partial sum in each lane."""
    halves = range(0, POSITION_BLOCK, LANES)
    factors = [_load(builder, weights, _at(builder, weights_start, half)) for half in halves]
    with _loop(builder, size) as channel:
        place, sum_place = _at(builder, start, channel, POSITION_BLOCK), _at(builder, sums_start, channel, LANES)
        total = cgutils.alloca_once_value(builder, _load(builder, sums, sum_place))
        for half, factor in zip(halves, factors, strict=True):
            _add_products(builder, total, _load(builder, values, _at(builder, place, half)), factor)
        _store(builder, builder.load(total), sums, sum_place)


@intrinsic(void, POINTER, int64, int64)
def sum_sixteen_vectors(builder, sums, start, result):
    """The sum of the lanes of each of the 16 vectors from `sums[start]` on, into `sums[result]` and the 15 after it."""
    vectors = [_load(builder, sums, _at(builder, start, i * LANES)) for i in range(LANES)]
    _store(builder, _summed_lanes(builder, vectors), sums, result)


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
    return builder.fadd(_shuffle(builder, a, b, own), _shuffle(builder, a, b, other))
