"""Each operation on vectors against NumPy."""

from typing import Any

import numpy as np
import pytest

from tinyllm.kernels.decode.blocks import TILE_NUMBERS
from tinyllm.kernels.decode.weights import round_to_bfloat16
from unit.kernels.decode.compiled import Array, memory, njit, random_floats, vectors

COLUMNS, STRIDE = 96, 160


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
        four = vectors.dot_four_rows(read(matrix), STRIDE, STRIDE, COLUMNS, read_x(x), 0)
        (one,) = vectors.dot_one_row(read(matrix), 0, STRIDE, COLUMNS, read_x(x), 0)
        memory.floats(result)[0] = one
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


def test_dot_tile_is_a_product_of_two_matrices() -> None:
    rows, x = random_floats(vectors.TILE_ROWS, 64), random_floats(vectors.TILE_INPUTS, 64, seed=1)
    tile = np.zeros(TILE_NUMBERS, np.float32)

    def operation(rows: int, x: int, tile: int, size: int) -> None:
        vectors.dot_tile(memory.floats(rows), 0, size, size, memory.floats(x), 0, memory.floats(tile), 0)

    run_on_floats(operation, (64,), rows, x, tile)
    actual = tile[: vectors.TILE_INPUTS * vectors.TILE_ROWS].reshape(vectors.TILE_INPUTS, vectors.TILE_ROWS)
    np.testing.assert_allclose(actual, x @ rows.T, rtol=1e-5, atol=1e-5)


def test_score_block_is_a_query_times_32_keys() -> None:
    query, keys, scores = random_floats(12), random_floats(12, 32, seed=1), np.zeros(32, np.float32)

    def operation(query: int, keys: int, scores: int, size: int) -> None:
        vectors.score_block(memory.floats(query), 0, size, memory.floats(keys), 0, memory.floats(scores), 0)

    run_on_floats(operation, (12,), query, keys, scores)
    np.testing.assert_allclose(scores, query @ keys, rtol=1e-5, atol=1e-5)


def test_mix_block_adds_weighted_values_in_16_partial_sums() -> None:
    weights, values, sums = random_floats(32), random_floats(12, 32, seed=1), random_floats(12, 16, seed=2)
    expected = sums.sum(axis=1) + values @ weights

    def operation(weights: int, values: int, sums: int, size: int) -> None:
        vectors.mix_block(memory.floats(weights), 0, size, memory.floats(values), 0, memory.floats(sums), 0)

    run_on_floats(operation, (12,), weights, values, sums)
    np.testing.assert_allclose(sums.sum(axis=1), expected, rtol=1e-5, atol=1e-5)


def test_sum_sixteen_vectors_sums_the_lanes_of_each() -> None:
    sums = random_floats(16, 16)
    expected = sums.sum(axis=1)

    def operation(sums: int, start: int, target: int) -> None:
        vectors.sum_sixteen_vectors(memory.floats(sums), start, target)

    run_on_floats(operation, (0, 0), sums)
    np.testing.assert_allclose(sums[0], expected, rtol=1e-5, atol=1e-5)
