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
from numba.extending import overload

from tinyllm.kernels.decode import vectors
from tinyllm.kernels.decode.blocks import HEAD_VECTOR_BLOCK, LANES, POSITION_BLOCK, TILE_NUMBERS
from tinyllm.kernels.decode.memory import float_from_bits, floats, integers, larger, power_of_two
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
    """softmax(q k / sqrt(C)) v (Vaswani et al. 2017) for heads `first` to `last`, counted across all rows.

    Each chunk has its own scratch memory for scores and for the partial sums of channels.
    """
    qkv = floats(plan.qkv)
    caches, positions = integers(plan.caches), integers(plan.positions)
    num_heads, num_kv_heads, size, num_vectors = plan.num_heads, plan.num_kv_heads, plan.head_size, plan.head_vectors
    attended, scale = floats(plan.attended), np.float32(1) / np.sqrt(np.float32(size))
    scores = floats(plan.scores + 4 * chunk * plan.num_positions)
    sums = floats(plan.head_sums + 4 * chunk * num_vectors * LANES)
    for index in range(first, last):
        row, head = index // num_heads, index % num_heads
        keys, values = floats(caches[row]), floats(caches[row] + 4 * plan.slot_keys)
        cached = cache_offset(plan, layer, head * num_kv_heads // num_heads)
        query, result = (row * (num_heads + 2 * num_kv_heads) + head) * size, row * plan.attention_columns + head * size
        num_keys = positions[row] + 1
        num_blocks = (num_keys + POSITION_BLOCK - 1) // POSITION_BLOCK
        for block in range(num_blocks):
            key = cached + block * size * POSITION_BLOCK
            vectors.score_block(qkv, query, size, keys, key, scores, block * POSITION_BLOCK)
        total = softmax_weights(scores, num_keys, num_blocks * POSITION_BLOCK, scale)
        for i in range(num_vectors * LANES):
            sums[i] = np.float32(0)
        for block in range(num_blocks):
            value = cached + block * size * POSITION_BLOCK
            vectors.mix_block(scores, block * POSITION_BLOCK, size, values, value, sums, 0)
        for vector in range(0, num_vectors, HEAD_VECTOR_BLOCK):
            vectors.sum_sixteen_vectors(sums, vector * LANES, vector)
        for i in range(size):
            attended[result + i] = sums[i] / total


@compiled
def softmax_weights(scores, length, span, scale):
    """Replaces `length` scores by e^(scale (score - largest)) and the rest of `span` by 0; returns their sum."""
    top, total = largest(scores, length), np.float32(0)
    for t in range(span):
        scores[t] = exponential((scores[t] - top) * scale)
    for t in range(length, span):
        scores[t] = np.float32(0)
    for t in range(span):
        total += scores[t]
    return total


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


@compiled
def multiply_row(plan, weights, packed, row, matrix, target, first, last, adds):
    """Matrix rows `first` to `last` times the packed activations of `row`, stored into `target` or added to it.

    `matrix` is its first weight, first scale and columns; `target` is a pointer and the length of its rows. Four
    matrix rows far apart are read together (see `vectors`).
    """
    start, scale_row, columns = matrix
    result, stride = target
    scales, factor = floats(plan.scales), floats(plan.packed_scales)[row]
    distance, x, offset = (last - first) // 4, row * columns, row * stride
    for y in range(first, first + distance):
        sums = vectors.dot_four_rows(weights, start + y * columns, distance * columns, columns, packed, x)
        for i in range(4):
            y_i = y + i * distance
            store(result, offset + y_i, sums[i] * (scales[scale_row + y_i] * factor), adds)
    for y in range(first + 4 * distance, last):
        (total,) = vectors.dot_one_row(weights, start + y * columns, columns, columns, packed, x)
        store(result, offset + y, total * (scales[scale_row + y] * factor), adds)


@compiled
def multiply_rows(plan, weights, packed, num_rows, chunk, matrix, target, first, last, adds):
    """As `multiply_row` for `num_rows` rows, to the same last bit: tiles of matrix rows and activation rows."""
    start, scale_row, columns = matrix
    result, stride = target
    scales, factors = floats(plan.scales), floats(plan.packed_scales)
    tiles, tile = floats(plan.tiles), chunk * TILE_NUMBERS
    tiled_rows, tiled_last = num_rows - num_rows % TILE_INPUTS, last - (last - first) % TILE_ROWS
    if tiled_rows > 0:
        for y in range(first, tiled_last, TILE_ROWS):
            for row in range(0, tiled_rows, TILE_INPUTS):
                vectors.dot_tile(weights, start + y * columns, columns, columns, packed, row * columns, tiles, tile)
                for j in range(TILE_INPUTS):
                    at_y, factor, products = (row + j) * stride + y, factors[row + j], tile + j * TILE_ROWS
                    for i in range(TILE_ROWS):
                        store(result, at_y + i, tiles[products + i] * (scales[scale_row + y + i] * factor), adds)
    for row in range(num_rows):
        y = tiled_last if row < tiled_rows else first
        multiply_row(plan, weights, packed, row, matrix, target, y, last, adds)


@compiled
def add_biases(plan, num_rows, matrix, target, first, last):
    """Adds the biases of matrix rows `first` to `last` to the products in `target`."""
    biases, bias_row, (result, stride) = floats(plan.biases), matrix[1], target
    for row in range(num_rows):
        for y in range(first, last):
            result[row * stride + y] += biases[bias_row + y]


@compiled
def store(result, index, value, adds):
    """Sets one number, or adds to it."""
    result[index] = result[index] + value if adds else value


def pack(x, x_start, packed, start, size):
    """Converts activations `x` to the type of `packed`; returns the factor that a product with them is scaled by."""
    raise NotImplementedError("exists only compiled")


@overload(pack, jit_options=INNER)
def _pack(x, x_start, packed, start, size):
    """Copies activations for float weights; quantizes them to int16 for int8 weights, the largest to `MAX_LEVEL`."""

    def copy(x, x_start, packed, start, size):
        for i in range(size):
            packed[start + i] = x[x_start + i]
        return np.float32(1)

    def quantize(x, x_start, packed, start, size):
        largest = np.float32(1e-30)
        for i in range(size):
            largest = max(largest, abs(x[x_start + i]))
        levels = np.float32(min(MAX_LEVEL, MAX_DOT_PRODUCT // (127 * size)))
        scale = levels / largest
        for i in range(size):
            packed[start + i] = np.int16(np.rint(x[x_start + i] * scale))
        return largest / levels

    return copy if packed.dtype == x.dtype else quantize


def widen(weights, start, scale, size, result, result_start):
    """Converts `size` weights from `start` on to float32."""
    raise NotImplementedError("exists only compiled")


@overload(widen, jit_options=INNER)
def _widen(weights, start, scale, size, result, result_start):
    """Shifts bfloat16, the upper half of a float32's bits; multiplies float32 and int8 by `scale`."""

    def shift(weights, start, scale, size, result, result_start):
        for i in range(size):
            result[result_start + i] = float_from_bits(np.int64(weights[start + i]) << 16)

    def convert(weights, start, scale, size, result, result_start):
        for i in range(size):
            result[result_start + i] = np.float32(weights[start + i]) * scale

    return shift if weights.dtype.bitwidth == 16 else convert
