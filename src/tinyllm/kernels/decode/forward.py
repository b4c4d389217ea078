"""The arithmetic of a Llama forward pass, compiled by Numba: plain loops over pointers, in the model's order.

`plan` is the record of `plan.py`. A row is one token of one text at one position: decoding one text has a single row,
many texts and prompts have many. Nothing here allocates or raises. Columns of matrices, and the activations that meet
them, are filled up with zeros to whole blocks, so that products have no remainder.

Shapes: C channels of one head, S positions of the cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from tinyllm.kernels.decode.blocks import (
    HEAD_VECTOR_BLOCK,
    LANES,
    POSITION_BLOCK,
    TILE_INPUTS,
    TILE_NUMBERS,
)
from tinyllm.kernels.decode.memory import (
    float_from_bits,
    floats,
    integers,
    larger,
    power_of_two,
)
from tinyllm.kernels.decode.vectors import (
    TILE_ROWS,
    dot_four_rows,
    dot_one_row,
    mix_block,
    multiply_tile,
    score_block,
    sum_sixteen_vectors,
)

FAST = {"fastmath": True, "error_model": "numpy"}
INNER = {**FAST, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""For functions that compiled code alone calls: what Python would need to call them is half of the compilation."""

LEVELS = 16_383
"""Largest packed activation, for matrices of up to 16,512 columns; wider ones have fewer steps."""
LARGEST_SUM_OF_LANES = (2**31 - 1) * LANES
"""Sixteen lanes share a row: each sums the products of its columns, up to 127 times `LEVELS`, in an int32."""


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled for types, where Numba would compile it again for each constant that a call hands over.

    That is a third of the time of the whole compilation, and of the code; LLVM takes constants into account later.
    """
    dispatcher = njit(**INNER)(function)
    compile_for = dispatcher.compile
    dispatcher.compile = lambda arguments: compile_for(tuple(types.unliteral(kind) for kind in arguments))
    return dispatcher


@compiled
def exponential(x):
    """e^x for x of at most 88, to 2.4e-7: Cephes' polynomial, which runs on whole vectors where a call would not."""
    x = max(x, np.float32(-87.0))
    power = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    rest = x - power * np.float32(0.693359375) - power * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * rest + np.float32(1.3981999507e-3)
    y = y * rest + np.float32(8.3334519073e-3)
    y = y * rest + np.float32(4.1665795894e-2)
    y = y * rest + np.float32(1.6666665459e-1)
    y = y * rest + np.float32(5.0000001201e-1)
    y = y * rest * rest + rest + np.float32(1.0)
    return y * power_of_two(power)


@compiled
def norm(plan, number, first, last):
    """RMSNorm (Zhang & Sennrich 2019) of some rows of the stream; `number` counts two a layer, and the last.

    The last one counts only the rows after which logits are wanted, and puts them side by side.
    """
    outputs, is_last = integers(plan.output_rows), number == 2 * plan.num_layers
    stream, normed, gains = floats(plan.residual), floats(plan.normed), floats(plan.gains)
    size, columns, eps = plan.hidden_size, plan.hidden_columns, np.float32(plan.norm_eps)
    for row in range(first, last):
        x, y, gain = (outputs[row] if is_last else row) * size, row * columns, number * size
        squares = np.float32(0)
        for i in range(size):
            squares += stream[x + i] * stream[x + i]
        scale = np.float32(1) / np.sqrt(squares / np.float32(size) + eps)
        for i in range(size):
            normed[y + i] = stream[x + i] * scale * gains[gain + i]


@compiled
def remember(plan, layer, first_row, last_row):
    """Turns some rows' queries and keys to their positions (Su et al. 2021), and caches their keys and values.

    Channel i of a head turns with channel i + C/2.
    """
    qkv = floats(plan.qkv)
    cosines, sines = floats(plan.cosines), floats(plan.sines)
    caches, positions = integers(plan.caches), integers(plan.positions)
    half, width = plan.head_size // 2, plan.num_kv_heads * plan.head_size
    num_turned = plan.num_heads + plan.num_kv_heads
    for row in range(first_row, last_row):
        start = row * (num_turned * 2 * half + width)
        for head in range(num_turned):
            first, angle = start + head * 2 * half, positions[row] * half
            for i in range(half):
                a, b = qkv[first + i], qkv[first + half + i]
                cosine, sine = cosines[angle + i], sines[angle + i]
                qkv[first + i], qkv[first + half + i] = a * cosine - b * sine, a * sine + b * cosine
        key = start + plan.num_heads * 2 * half
        keys, values = floats(caches[row]), floats(caches[row] + 4 * plan.slot_keys)
        block, lane = positions[row] // POSITION_BLOCK, positions[row] % POSITION_BLOCK
        for head in range(plan.num_kv_heads):
            cached = head_start(plan, layer, head) + block * 2 * half * POSITION_BLOCK + lane
            for i in range(2 * half):
                source = key + head * 2 * half + i
                keys[cached + i * POSITION_BLOCK] = qkv[source]
                values[cached + i * POSITION_BLOCK] = qkv[source + width]


@compiled
def head_start(plan, layer, kv_head):
    """Index of a head's first key in its slot, and of its first value: (S / 32, C, 32), 32 positions side by side."""
    return (layer * plan.num_kv_heads + kv_head) * plan.head_size * plan.num_positions


@compiled
def attend(plan, layer, first, last, chunk):
    """Heads `first` to `last`, counted through all rows: softmax(q k / sqrt(C)) v (Vaswani et al. 2017).

    Keys and values of a head are read once, in the order of memory.
    """
    qkv = floats(plan.qkv)
    caches, positions = integers(plan.caches), integers(plan.positions)
    mixed, scores, sums = floats(plan.attended), floats(plan.scores), floats(plan.head_sums)
    num_heads, num_kv_heads, size = plan.num_heads, plan.num_kv_heads, plan.head_size
    scale, s, num_vectors = np.float32(1) / np.sqrt(np.float32(size)), chunk * plan.num_positions, plan.head_vectors
    m = chunk * num_vectors * LANES
    for index in range(first, last):
        row, head = index // num_heads, index % num_heads
        keys, values = floats(caches[row]), floats(caches[row] + 4 * plan.slot_keys)
        cached = head_start(plan, layer, head * num_kv_heads // num_heads)
        query, result = (row * (num_heads + 2 * num_kv_heads) + head) * size, row * plan.hidden_columns + head * size
        num_seen = positions[row] + 1
        num_blocks = (num_seen + POSITION_BLOCK - 1) // POSITION_BLOCK
        for block in range(num_blocks):
            key = cached + block * size * POSITION_BLOCK
            score_block(qkv, query, size, keys, key, scores, s + block * POSITION_BLOCK)
        total = softmax_powers(scores, s, num_seen, num_blocks * POSITION_BLOCK, scale)
        for i in range(num_vectors * LANES):
            sums[m + i] = np.float32(0)
        for block in range(num_blocks):
            value = cached + block * size * POSITION_BLOCK
            mix_block(scores, s + block * POSITION_BLOCK, size, values, value, sums, m)
        for vector in range(0, num_vectors, HEAD_VECTOR_BLOCK):
            sum_sixteen_vectors(sums, m + vector * LANES, m + vector)
        for i in range(size):
            mixed[result + i] = sums[m + i] / total


@compiled
def softmax_powers(scores, start, length, span, scale):
    """Turns `length` scores times `scale` into powers of e, up to a factor, those after them into 0; gives the sum."""
    top = scores[start]
    for t in range(length):
        top = larger(top, scores[start + t])
    for t in range(span):
        scores[start + t] = exponential((scores[start + t] - top) * scale)
    for t in range(length, span):
        scores[start + t] = np.float32(0)
    total = np.float32(0)
    for t in range(span):
        total += scores[start + t]
    return total


@compiled
def gate(plan, row, first, last):
    """SwiGLU's product (Shazeer 2020) of some channels of one row: silu(gate) * up."""
    size = plan.intermediate_size
    both, gated = floats(plan.gate_up), floats(plan.gated)
    x, y = row * 2 * size, row * plan.intermediate_columns
    for i in range(first, last):
        g = both[x + i]
        gated[y + i] = g / (np.float32(1) + exponential(min(-g, np.float32(80)))) * both[x + size + i]


@compiled
def multiply(plan, weights, packed, row, start, scale_row, columns, result, y_stride, first, last, adds):
    """Rows `first` to `last` of the matrix at `start` times the packed activations of `row`, into `result` or added.

    Four rows of weights far apart are read at once: see `vectors`.
    """
    scales, factor = floats(plan.scales), floats(plan.packed_scales)[row]
    distance, x, y_start = (last - first) // 4, row * columns, row * y_stride
    for y in range(first, first + distance):
        sums = dot_four_rows(weights, start + y * columns, distance * columns, columns, packed, x)
        for i in range(4):
            at_y = y + i * distance
            put(result, y_start + at_y, sums[i] * (scales[scale_row + at_y] * factor), adds)
    for y in range(first + 4 * distance, last):
        (total,) = dot_one_row(weights, start + y * columns, columns, columns, packed, x)
        put(result, y_start + y, total * (scales[scale_row + y] * factor), adds)


@compiled
def multiply_many(plan, weights, num_rows, chunk, start, scale_row, columns, result, y_stride, first, last, adds):
    """As `multiply`, for all of many rows: weights widened to float32, a few at a time, meet 16 rows at a time."""
    scales, turned, tiles = floats(plan.scales), floats(plan.transposed), floats(plan.tiles)
    tile = chunk * plan.tile_stride
    panel = tile + TILE_NUMBERS
    for y in range(first, last, TILE_ROWS):
        height = min(TILE_ROWS, last - y)
        for i in range(height):
            widen(weights, start + (y + i) * columns, scales[scale_row + y + i], columns, tiles, panel + i * columns)
        for row in range(0, num_rows, TILE_INPUTS):
            multiply_tile(tiles, panel, columns, turned, row * columns, tiles, tile)
            for j in range(min(TILE_INPUTS, num_rows - row)):
                at_y, at_tile = (row + j) * y_stride + y, tile + j * TILE_INPUTS
                for i in range(height):
                    put(result, at_y + i, tiles[at_tile + i], adds)


@compiled
def put(result, place, value, adds):
    """Sets or adds to one number."""
    result[place] = result[place] + value if adds else value


@compiled
def turn(plan, x, row, columns):
    """Lays out one row of activations for `multiply_many`: sixteen rows side by side, column after column."""
    turned, start = floats(plan.transposed), row // TILE_INPUTS * TILE_INPUTS * columns + row % TILE_INPUTS
    for i in range(columns):
        turned[start + i * TILE_INPUTS] = x[row * columns + i]


def pack(x, x_start, packed, start, size):
    """Prepares activations `x` for products with weights, in `packed`; gives the factor of the products."""
    raise NotImplementedError("exists only compiled")


@overload(pack, jit_options=INNER)
def _pack(x, x_start, packed, start, size):
    """Beside float weights activations stay as they are; beside int8 they are int16, in steps of their largest."""

    def copy(x, x_start, packed, start, size):
        for i in range(size):
            packed[start + i] = x[x_start + i]
        return np.float32(1)

    def quantize(x, x_start, packed, start, size):
        largest = np.float32(1e-30)
        for i in range(size):
            largest = max(largest, abs(x[x_start + i]))
        levels = np.float32(min(LEVELS, LARGEST_SUM_OF_LANES // (127 * size)))
        scale = levels / largest
        for i in range(size):
            packed[start + i] = np.int16(np.rint(x[x_start + i] * scale))
        return largest / levels

    return copy if packed.dtype == x.dtype else quantize


def widen(weights, start, scale, size, result, result_start):
    """`size` weights from `start` on as float32."""
    raise NotImplementedError("exists only compiled")


@overload(widen, jit_options=INNER)
def _widen(weights, start, scale, size, result, result_start):
    """float32 and int8 are numbers as they are; bfloat16 is the upper half of a float32's bits."""

    def shift(weights, start, scale, size, result, result_start):
        for i in range(size):
            result[result_start + i] = float_from_bits(np.int64(weights[start + i]) << 16)

    def convert(weights, start, scale, size, result, result_start):
        for i in range(size):
            result[result_start + i] = np.float32(weights[start + i]) * scale

    return shift if weights.dtype.bitwidth == 16 else convert
