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
from numba.core.types import CPointer, float32, int64, void

from tinyllm.kernels.decode.blocks import COLUMN_BLOCK, LANES, POSITION_BLOCK
from tinyllm.kernels.decode.memory import FEATURES, POINTER, bytes_per_number, call_llvm, intrinsic

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


def _dot_products(builder: ir.IRBuilder, num_rows: int, num_inputs: int, *arguments: ir.Value) -> list[ir.Value]:
    """The products of matrix rows with inputs, those of the first input first, in vectors of up to 16.

    Arguments: weights, start, stride, block_stride, columns, x, x_start. Rows of the matrix are `stride` apart, and the
    blocks of columns in a row `block_stride`. Inputs are `columns` apart. Each lane sums every 16th column in order,
    whatever the number of rows and inputs.
    """
    weights, start, stride, block_stride, columns, x, x_start = arguments
    whole = weights.type.pointee == _INT8
    step = COLUMN_BLOCK if whole else LANES
    num_bytes = step * bytes_per_number(weights)
    zero = ir.Constant(_INTEGERS if whole else _FLOATS, None)
    totals = [cgutils.alloca_once_value(builder, zero) for _ in range(num_inputs * num_rows)]
    with _loop(builder, builder.sdiv(columns, _INT64(COLUMN_BLOCK))) as block:
        for part in range(0, COLUMN_BLOCK, step):
            x_part = _at(builder, _at(builder, x_start, block, COLUMN_BLOCK), part)
            inputs = [_load(builder, x, _at(builder, x_part, columns, i), step) for i in range(num_inputs)]
            row_part = _at(builder, _at(builder, start, block, block_stride), part)
            for row in range(num_rows):
                place = _at(builder, row_part, stride, row)
                _prefetch(builder, weights, place, num_bytes)
                numbers = _load(builder, weights, place, step)
                for i in range(num_inputs):
                    _add_products(builder, totals[i * num_rows + row], numbers, inputs[i])
    sums = [builder.load(total) for total in totals]
    if whole:  # sixteen sums of up to 2^31 do not fit in one int32
        sums = [builder.sitofp(total, _FLOATS) for total in sums]
    return [_summed_lanes(builder, sums[i : i + LANES]) for i in range(0, len(sums), LANES)]


def _make_dot(num_rows: int, num_inputs: int) -> Callable[..., Any]:
    """The intrinsic that returns the products of matrix rows with inputs, those of the first input first.

    The result points to float32 numbers, valid until the next call. Each product of fp32 or bf16 weights is the same
    to the last bit in a tile of any size.
    """

    @intrinsic(CPointer(float32), POINTER, int64, int64, int64, int64, POINTER, int64)
    def dot(builder, weights, start, stride, block_stride, columns, x, x_start):
        factors = weights, start, stride, block_stride, columns, x, x_start
        products = _dot_products(builder, num_rows, num_inputs, *factors)
        tile = cgutils.alloca_once(builder, ir.ArrayType(_FLOATS, len(products)))
        for i, vector in enumerate(products):
            builder.store(vector, cgutils.gep_inbounds(builder, tile, 0, i))
        return builder.bitcast(tile, _FLOAT.as_pointer())

    return dot


dot_tile = _make_dot(TILE_ROWS, TILE_INPUTS)
dot_sixteen_rows, dot_four_rows, dot_one_row = _make_dot(LANES, 1), _make_dot(4, 1), _make_dot(1, 1)


def _make_score(num_queries: int) -> Callable[..., Any]:
    """The intrinsic that writes the unscaled products of queries (C,) and a block of keys (C, 32) into `scores` (32,).

    Queries are `stride` apart, and their scores `scores_stride`.
    """

    @intrinsic(void, POINTER, int64, int64, int64, POINTER, int64, POINTER, int64, int64)
    def score(builder, queries, query_start, stride, size, keys, start, scores, scores_start, scores_stride):
        halves = range(0, POSITION_BLOCK, LANES)
        # Two sums for each position halve the wait for the preceding addition.
        zero = ir.Constant(_FLOATS, None)
        totals = [
            [[cgutils.alloca_once_value(builder, zero) for _ in range(2)] for _ in halves] for _ in range(num_queries)
        ]
        with _loop(builder, size, 2) as channel:
            for odd in range(2):
                this = _at(builder, channel, odd)
                place = _at(builder, start, this, POSITION_BLOCK)
                blocks = [_load(builder, keys, _at(builder, place, half)) for half in halves]
                for i in range(num_queries):
                    query = builder.gep(queries, [_at(builder, builder.add(query_start, this), stride, i)])
                    factor = _in_all_lanes(builder, builder.load(query))
                    for block, sums in zip(blocks, totals[i], strict=True):
                        _add_products(builder, sums[odd], block, factor)
        for i in range(num_queries):
            for half, sums in zip(halves, totals[i], strict=True):
                total = builder.fadd(*(builder.load(sum_) for sum_ in sums))
                _store(builder, total, scores, _at(builder, _at(builder, scores_start, scores_stride, i), half))

    return score


score_row, score_rows = _make_score(1), _make_score(TILE_INPUTS)
"""The scores of one row of a text, and of as many as a tile has."""


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
