"""Each operation on vectors against NumPy."""

from typing import Any

import numpy as np
import pytest

from tinyllm.kernels.decode.blocks import COLUMN_BLOCK, LANES
from tinyllm.kernels.decode.weights import round_to_bfloat16
from unit.kernels.decode.compiled import Array, memory, njit, random_floats, vectors

COLUMNS, STRIDE = 96, 160
BLOCK = COLUMN_BLOCK


def int8_matrix() -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    return random.integers(-127, 128, (5, STRIDE), np.int8), random.integers(-99, 99, COLUMNS, np.int16)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_dots_are_products_of_rows_and_a_vector(kind: str) -> None:
    x: Array = random_floats(COLUMNS, seed=1)
    matrix: Array = random_floats(5, STRIDE)
    read, read_x = memory.floats, memory.floats
    if kind == "bf16":
        matrix, read = round_to_bfloat16(matrix), memory.halves
    elif kind == "int8":
        (matrix, x), read, read_x = int8_matrix(), memory.bytes_, memory.words

    @njit
    def run(matrix: int, x: int, result: int) -> None:
        one = vectors.dot_one_row(read(matrix), 0, STRIDE, BLOCK, COLUMNS, read_x(x), 0)
        memory.floats(result)[0] = one[0]
        four = vectors.dot_four_rows(read(matrix), STRIDE, STRIDE, BLOCK, COLUMNS, read_x(x), 0)
        for i in range(4):
            memory.floats(result)[i + 1] = four[i]

    result = np.zeros(5, np.float32)
    run(matrix.ctypes.data, x.ctypes.data, result.ctypes.data)
    if kind == "bf16":
        matrix = (matrix.astype(np.uint32) << 16).view(np.float32)
    expected = matrix[:, :COLUMNS].astype(np.float64) @ x.astype(np.float64)
    np.testing.assert_allclose(result, expected, rtol=0 if kind == "int8" else 1e-5, atol=0 if kind == "int8" else 1e-4)


def run_on_floats(operation: Any, sizes: tuple[int, ...], *arrays: Array) -> None:
    """Compiles `operation` and calls it with the arrays' addresses, then the sizes."""
    njit(operation)(*(array.ctypes.data for array in arrays), *sizes)


@pytest.mark.parametrize("tile", ["dot_tile", "dot_sixteen_rows"])
def test_dot_tile_is_a_product_of_two_matrices(tile: str) -> None:
    """The matrix has whole rows, or lies in blocks of 32 columns as the values in a cache."""
    num_rows, num_inputs = (vectors.TILE_ROWS, vectors.TILE_INPUTS) if tile == "dot_tile" else (LANES, 1)
    rows, x, dot = random_floats(num_rows, 64), random_floats(num_inputs, 64, seed=1), getattr(vectors, tile)
    blocks = np.ascontiguousarray(rows.reshape(num_rows, 2, BLOCK).transpose(1, 0, 2))
    count = num_inputs * num_rows
    found = np.zeros((2, count), np.float32)

    def operation(rows: int, blocks: int, x: int, found: int, size: int) -> None:
        whole = dot(memory.floats(rows), 0, size, BLOCK, size, memory.floats(x), 0)
        for i in range(count):
            memory.floats(found)[i] = whole[i]
        parts = dot(memory.floats(blocks), 0, BLOCK, num_rows * BLOCK, size, memory.floats(x), 0)
        for i in range(count):
            memory.floats(found)[count + i] = parts[i]

    run_on_floats(operation, (64,), rows, blocks, x, found)
    np.testing.assert_allclose(found[0].reshape(num_inputs, num_rows), x @ rows.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("score", ["score_row", "score_rows"])
def test_score_row_is_a_query_times_32_keys(score: str) -> None:
    count, kernel = vectors.TILE_INPUTS if score == "score_rows" else 1, getattr(vectors, score)
    queries, keys, scores = random_floats(count, 20), random_floats(12, 32, seed=1), np.zeros((count, 64), np.float32)

    def operation(queries: int, keys: int, scores: int, size: int) -> None:
        kernel(memory.floats(queries), 0, 20, size, memory.floats(keys), 0, memory.floats(scores), 32, 64)

    run_on_floats(operation, (12,), queries, keys, scores)
    np.testing.assert_allclose(scores[:, 32:], queries[:, :12] @ keys, rtol=1e-5, atol=1e-5)
    assert not scores[:, :32].any()
