"""The arithmetic of a Llama forward pass, compiled by Numba: plain loops over pointers, in the model's order.

`plan` is the record of `plan.py`. A row is one token of one text at one position: decoding one text has one row, many
texts and prompts have many. No function here allocates or raises. Columns of matrices and their activations are padded
with zeros to whole blocks (see `blocks`), so that products have no remainder.

Shapes: C channels of one head, S positions of the cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

from tinyllm.kernels.decode import vectors
from tinyllm.kernels.decode.blocks import BLOCK_ACTIVATIONS, LANES, POSITION_BLOCK
from tinyllm.kernels.decode.memory import float_from_bits, floats, integers, larger, power_of_two, width_of
from tinyllm.kernels.decode.vectors import TILE_INPUTS, TILE_ROWS

FAST = {"fastmath": True, "error_model": "numpy"}
INNER = {**FAST, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of functions that only compiled code calls: wrappers for Python would double the time of compilation."""

LOWEST = np.finfo(np.float32).min
"""The lowest float32."""
MAX_LEVEL = 16_383
"""Largest int16 activation for matrices of up to 16,512 columns; wider matrices have a smaller one."""
MAX_DOT_PRODUCT = (2**31 - 1) * LANES
"""Largest product of an int8 row and int16 activations: each lane sums its columns in an int32."""


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled once for each signature of types.

    Numba alone would compile it for each constant argument too, a third of the whole time; LLVM propagates constants
    afterwards.
    """
    dispatcher = njit(**INNER)(function)
    compile_for = dispatcher.compile
    dispatcher.compile = lambda arguments: compile_for(tuple(types.unliteral(kind) for kind in arguments))
    return dispatcher


@compiled
def exponential(x):
    """e^x for x <= 88 with a relative error of 2.4e-7: Cephes' polynomial, which LLVM vectorizes, unlike a call."""
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
def normalize(plan, norm, first, last):
    """RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x^2) + eps) * gain, for rows `first` to `last`.

    `norm` is 2 layer for attention and 2 layer + 1 for the feed-forward part. The last norm, 2 L, reads output rows
    only.
    """
    outputs, is_last = integers(plan.output_rows), norm == 2 * plan.num_layers
    residual, normed, gains = floats(plan.residual), floats(plan.normed), floats(plan.gains)
    size, columns, eps = plan.hidden_size, plan.hidden_columns, np.float32(plan.norm_eps)
    for row in range(first, last):
        x, y, gain = (outputs[row] if is_last else row) * size, row * columns, norm * size
        squares = np.float32(0)
        for i in range(size):
            squares += residual[x + i] * residual[x + i]
        scale = np.float32(1) / np.sqrt(squares / np.float32(size) + eps)
        for i in range(size):
            normed[y + i] = residual[x + i] * scale * gains[gain + i]


@compiled
def append_to_cache(plan, layer, first_row, last_row):
    """Rotates the queries and keys of some rows (Su et al. 2021) and stores keys and values at the rows' positions.

    Channels i and i + C/2 of a head rotate together: a cos - b sin, a sin + b cos.
    """
    qkv = floats(plan.qkv)
    cosines, sines = floats(plan.cosines), floats(plan.sines)
    caches, positions = integers(plan.caches), integers(plan.positions)
    half, width = plan.head_size // 2, plan.num_kv_heads * plan.head_size
    num_rotated = plan.num_heads + plan.num_kv_heads
    for row in range(first_row, last_row):
        start = row * (num_rotated * 2 * half + width)
        for head in range(num_rotated):
            first, angle = start + head * 2 * half, positions[row] * half
            for i in range(half):
                a, b = qkv[first + i], qkv[first + half + i]
                cosine, sine = cosines[angle + i], sines[angle + i]
                qkv[first + i], qkv[first + half + i] = a * cosine - b * sine, a * sine + b * cosine
        key = start + plan.num_heads * 2 * half
        keys, values = floats(caches[row]), floats(caches[row] + 4 * plan.slot_keys)
        block, lane = positions[row] // POSITION_BLOCK, positions[row] % POSITION_BLOCK
        for head in range(plan.num_kv_heads):
            cached = cache_offset(plan, layer, head) + block * 2 * half * POSITION_BLOCK + lane
            for i in range(2 * half):
                source = key + head * 2 * half + i
                keys[cached + i * POSITION_BLOCK] = qkv[source]
                values[cached + i * POSITION_BLOCK] = qkv[source + width]


@compiled
def cache_offset(plan, layer, kv_head):
    """The offset of one KV head in the keys of a slot, and in its values: each head is stored as (S / 32, C, 32)."""
    return (layer * plan.num_kv_heads + kv_head) * plan.head_size * plan.num_positions


@compiled
def attend(plan, layer, first, last, chunk):
    """softmax(q k / sqrt(C)) v (Vaswani et al. 2017) for items `first` to `last`: one head of `TILE_INPUTS` rows each.

    Rows that are neighbours in one text share the reads of keys and values; a row's result is the same without them.
    """
    caches = integers(plan.caches)
    num_groups = attention_items(plan) // plan.num_heads
    for item in range(first, last):
        row = item % num_groups * TILE_INPUTS
        end, step = min(row + TILE_INPUTS, plan.num_rows), 1
        if row + TILE_INPUTS == end and caches[row] == caches[end - 1]:
            step = TILE_INPUTS
        while row < end:
            attend_rows(plan, layer, item // num_groups, row, step, chunk)
            row += step


@compiled
def attention_items(plan):
    """Number of items of `attend` in a pass."""
    return (plan.num_rows + TILE_INPUTS - 1) // TILE_INPUTS * plan.num_heads


@compiled
def attend_rows(plan, layer, head, row, count, chunk):
    """One head of `count` neighbouring rows of a text: 1 or `TILE_INPUTS`. Each chunk has scratch memory for scores."""
    positions, size = integers(plan.positions), plan.head_size
    num_heads, num_kv_heads = plan.num_heads, plan.num_kv_heads
    qkv, keys = floats(plan.qkv), floats(integers(plan.caches)[row])
    values = floats(integers(plan.caches)[row] + 4 * plan.slot_keys)
    weights = floats(plan.scores + 4 * chunk * TILE_INPUTS * plan.num_positions)
    start, stride = cache_offset(plan, layer, head * num_kv_heads // num_heads), (num_heads + 2 * num_kv_heads) * size
    query, span = row * stride + head * size, whole_blocks(positions[row + count - 1] + 1)
    for t in range(0, span, POSITION_BLOCK):
        if count == 1:
            vectors.score_row(qkv, query, stride, size, keys, start + t * size, weights, t, span)
        else:
            vectors.score_rows(qkv, query, stride, size, keys, start + t * size, weights, t, span)
    for i in range(count):
        softmax(weights, i * span, positions[row + i] + 1, span, np.float32(1) / np.sqrt(np.float32(size)))
    target = floats(plan.attended + 4 * (row * plan.attention_columns + head * size)), plan.attention_columns
    matrix, rest = (start, 0, span, POSITION_BLOCK, POSITION_BLOCK * size), 0
    if count == 1:
        rest = multiply_sixteens(plan, values, weights, (0, 1), matrix, target, 0, size, False)
    multiply_rows(plan, values, weights, count, matrix, target, rest, size, False)


@compiled
def whole_blocks(num_positions):
    """The smallest multiple of `POSITION_BLOCK` that is not below `num_positions`."""
    return (num_positions + POSITION_BLOCK - 1) // POSITION_BLOCK * POSITION_BLOCK


@compiled
def softmax(x, start, length, span, scale):
    """Replaces `length` scores x by e^(scale x) / their sum, and the rest of `span` by 0; the bits ignore `span`."""
    own, total, top = whole_blocks(length), np.float32(0), LOWEST
    for t in range(start, start + length):
        top = larger(top, x[t])
    for t in range(start, start + own):
        x[t] = exponential((x[t] - top) * scale)
    for t in range(start + length, start + span):
        x[t] = np.float32(0)
    for t in range(start, start + own):
        total += x[t]
    share = np.float32(1) / total
    for t in range(start, start + own):
        x[t] *= share


@compiled
def largest(x, size):
    """The largest of some numbers."""
    top = LOWEST
    for i in range(size):
        top = larger(top, x[i])
    return top


@compiled
def swiglu(plan, row, first, last):
    """gate / (1 + e^-gate) * up (Shazeer 2020), for channels `first` to `last` of one row."""
    size = plan.intermediate_size
    both, gated = floats(plan.gate_up), floats(plan.gated)
    x, y = row * 2 * size, row * plan.intermediate_columns
    for i in range(first, last):
        g = both[x + i]
        gated[y + i] = g / (np.float32(1) + exponential(min(-g, np.float32(80)))) * both[x + size + i]


def _make_product(dot: Any, tile_rows: int, tile_inputs: int) -> Any:
    """The product of a matrix with activations by tiles, which `dot` computes."""

    @compiled
    def multiply(plan, weights, packed, rows, matrix, target, first, last, adds):
        """Matrix rows `first` to `last` times the packed activations of `rows`; returns the first row that is left.

        `rows` is a first and a last row, whole tiles. `matrix` is its first weight, first scale, columns, and the
        distances of rows and of blocks of columns. `target` is a pointer, whose numbers are set or added to, and the
        length of its rows. The matrix rows of a tile for one activation row are far apart (see `vectors`).
        """
        start, scale_row, columns, row_stride, block_stride = matrix
        scales, packed_scales, (result, stride) = floats(plan.scales), floats(plan.packed_scales), target
        num_tiles = (last - first) // tile_rows
        step, distance = (tile_rows, 1) if tile_inputs > 1 else (1, num_tiles)
        for y in range(first, first + num_tiles * step, step):
            for row in range(rows[0], rows[1], tile_inputs):
                place, x = start + y * row_stride, row * columns
                products = dot(weights, place, distance * row_stride, block_stride, columns, packed, x)
                for j in range(tile_inputs):
                    for i in range(tile_rows):
                        y_i, product = y + i * distance, products[j * tile_rows + i]
                        if width_of(weights) == 1:
                            product *= scales[scale_row + y_i] * packed_scales[row + j]
                        index = (row + j) * stride + y_i
                        result[index] = result[index] + product if adds else product
        return first + tile_rows * num_tiles

    return multiply


multiply_tiles = _make_product(vectors.dot_tile, TILE_ROWS, TILE_INPUTS)
multiply_sixteens = _make_product(vectors.dot_sixteen_rows, LANES, 1)
multiply_fours, multiply_ones = _make_product(vectors.dot_four_rows, 4, 1), _make_product(vectors.dot_one_row, 1, 1)


@compiled
def multiply_rows(plan, weights, packed, num_rows, matrix, target, first, last, adds):
    """Matrix rows `first` to `last` times the packed activations of `num_rows` rows; see `multiply` for the rest.

    A block of activation rows stays in a core's cache while the matrix passes by.
    """
    tiled, columns = num_rows - num_rows % TILE_INPUTS, matrix[2]
    block_rows = max(1, BLOCK_ACTIVATIONS // (columns * TILE_INPUTS)) * TILE_INPUTS
    for first_row in range(0, tiled, block_rows):
        rows = first_row, min(first_row + block_rows, tiled)
        rest = multiply_tiles(plan, weights, packed, rows, matrix, target, first, last, adds)
        multiply_ones(plan, weights, packed, rows, matrix, target, rest, last, adds)
    for row in range(tiled, num_rows):
        rows = row, row + 1
        rest = multiply_fours(plan, weights, packed, rows, matrix, target, first, last, adds)
        multiply_ones(plan, weights, packed, rows, matrix, target, rest, last, adds)


@compiled
def add_biases(plan, num_rows, matrix, target, first, last):
    """Adds the biases of matrix rows `first` to `last` to the products in `target`."""
    biases, bias_row, (result, stride) = floats(plan.biases), matrix[1], target
    for row in range(num_rows):
        for y in range(first, last):
            result[row * stride + y] += biases[bias_row + y]


@compiled
def pack(x, x_start, packed, start, size):
    """Converts activations `x` to the type of `packed`; returns the factor that a product with them is scaled by.

    Copies activations for float weights; quantizes them to int16 for int8 weights, the largest to `MAX_LEVEL`.
    """
    if width_of(packed) == width_of(x):
        for i in range(size):
            packed[start + i] = x[x_start + i]
        return np.float32(1)
    top = np.float32(1e-30)
    for i in range(size):
        top = larger(top, abs(x[x_start + i]))
    levels = np.float32(min(MAX_LEVEL, MAX_DOT_PRODUCT // (127 * size)))
    scale = levels / top
    for i in range(size):
        packed[start + i] = np.int16(np.rint(x[x_start + i] * scale))
    return top / levels


@compiled
def widen(weights, start, scale, size, result, result_start):
    """Converts `size` weights from `start` on to float32; fp32 and int8 are multiplied by `scale`."""
    for i in range(size):
        number = weights[start + i]
        if width_of(weights) == 2:  # bfloat16 is the upper half of a float32's bits
            result[result_start + i] = float_from_bits(np.int64(number) << 16)
        else:
            result[result_start + i] = np.float32(number) * scale
