"""Each kernel of the forward pass against its NumPy formula, on sizes that fill no block."""

import numpy as np
import numpy.typing as npt
import pytest

from tinyllm.kernels.decode.blocks import COLUMN_BLOCK
from tinyllm.kernels.decode.weights import padded, quantize_rows, round_to_bfloat16
from unit.kernels.decode.compiled import (
    Array,
    callable_kernel,
    forward,
    memory,
    njit,
    padded_columns,
    plan_of,
    random_floats,
)

HEADS, KV_HEADS, HEAD_SIZE, POSITIONS = 3, 1, 12, 96


def test_exponential_is_that_of_numpy() -> None:
    x = np.linspace(-86, 88, 1_001, dtype=np.float32)

    @njit
    def run(x: npt.NDArray[np.float32], result: npt.NDArray[np.float32]) -> None:
        for i in range(len(x)):
            result[i] = forward.exponential(x[i])

    result = np.empty_like(x)
    run(x, result)
    np.testing.assert_allclose(result, np.exp(x.astype(np.float64)), rtol=3e-7)


@pytest.mark.parametrize("is_last", [False, True], ids=["every row", "output rows"])
def test_normalize_is_rms_norm(is_last: bool) -> None:
    x, gains, outputs = random_floats(5, 37), random_floats(3, 37, seed=1), np.array([4, 1])
    normed = np.zeros((5, 64), np.float32)
    fields = {"num_layers": 1, "hidden_size": 37, "hidden_columns": 64, "norm_eps": 1e-3}
    plan = plan_of(**fields, residual=x, normed=normed, gains=gains, output_rows=outputs)
    norm, count = (2, 2) if is_last else (1, 5)
    callable_kernel(forward.normalize)(plan, norm, 0, count)
    rows = x[outputs] if is_last else x
    expected = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-3) * gains[norm]
    np.testing.assert_allclose(normed[:count, :37], expected, rtol=1e-5)
    assert not normed[:, 37:].any(), "the padding stays 0"


def rotate(x: npt.NDArray[np.float32], angles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Channels i and i + C/2 of `x` (heads, C) as complex numbers times e^(i angle)."""
    rotated = (x[:, : HEAD_SIZE // 2] + 1j * x[:, HEAD_SIZE // 2 :]) * np.exp(1j * angles)
    return np.concatenate((rotated.real, rotated.imag), axis=1).astype(np.float32)


def test_append_to_cache_rotates_and_stores() -> None:
    positions, angles = np.array([0, 31, 70]), random_floats(POSITIONS, HEAD_SIZE // 2)
    qkv = random_floats(3, (HEADS + 2 * KV_HEADS) * HEAD_SIZE, seed=1)
    before = qkv.reshape(3, -1, HEAD_SIZE).copy()
    slots = np.zeros((3, 2, 2, KV_HEADS, POSITIONS // 32, HEAD_SIZE, 32), np.float32)  # row, keys or values, layer
    caches, cosines, sines = np.array([slot.ctypes.data for slot in slots]), np.cos(angles), np.sin(angles)
    sizes = {"num_heads": HEADS, "num_kv_heads": KV_HEADS, "head_size": HEAD_SIZE, "num_positions": POSITIONS}
    arrays = {"qkv": qkv, "caches": caches, "positions": positions, "cosines": cosines, "sines": sines}
    callable_kernel(forward.append_to_cache)(plan_of(**sizes, **arrays, slot_keys=slots[0, 0].size), 1, 0, 3)
    for row, position in enumerate(positions):
        keys, values = slots[row, :, 1, :, position // 32, :, position % 32]
        rotated = rotate(before[row, : HEADS + KV_HEADS], angles[position])
        np.testing.assert_allclose(qkv.reshape(3, -1, HEAD_SIZE)[row, :HEADS], rotated[:HEADS], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(keys, rotated[HEADS:], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(values, before[row, HEADS + KV_HEADS :])
    assert np.count_nonzero(slots) == 3 * 2 * KV_HEADS * HEAD_SIZE, "nothing else is written"


@pytest.mark.parametrize("head_size", [12, 38], ids=["narrow", "wide"])
def test_attend_is_softmax_of_scores_times_values(head_size: int) -> None:
    """Two texts: a row alone, and eleven rows that cross a block of positions; to the last bit as rows alone."""
    positions, num_rows = np.array([70, *range(25, 36)]), 12
    qkv = random_floats(num_rows, (HEADS + 2 * KV_HEADS) * head_size)
    slots = random_floats(2, 2, 2, KV_HEADS, POSITIONS // 32, head_size, 32, seed=1)  # text, keys or values, layer
    caches = np.array([slots[min(row, 1)].ctypes.data for row in range(num_rows)])
    columns = padded(HEADS * head_size)
    sizes = {"num_heads": HEADS, "num_kv_heads": KV_HEADS, "head_size": head_size, "num_positions": POSITIONS}
    sizes |= {"attention_columns": columns, "slot_keys": slots[0, 0].size}
    scratch = {"scores": random_floats(2, 4, POSITIONS)}
    attended, alone = (np.zeros((num_rows, columns), np.float32) for _ in range(2))
    arrays = {"qkv": qkv, "caches": caches, "positions": positions, **scratch, "num_rows": num_rows}
    attend, plan = callable_kernel(forward.attend), plan_of(**sizes, **arrays, attended=attended)
    attend(plan, 1, 0, num_rows // 4 * HEADS, 1)
    for row, position in enumerate(positions):
        one = {"qkv": qkv[row:], "caches": caches[row:], "positions": positions[row:], "num_rows": 1}
        attend(plan_of(**sizes, **scratch | one, attended=alone[row:]), 1, 0, HEADS, 1)
        cached = slots[min(row, 1), :, 1, 0].transpose(0, 1, 3, 2).reshape(2, POSITIONS, head_size)
        keys, values = cached[:, : position + 1]
        queries = qkv.reshape(num_rows, -1, head_size)[row, :HEADS]
        weights = np.exp(queries @ keys.T / np.sqrt(head_size))
        expected = weights / weights.sum(axis=1, keepdims=True) @ values
        np.testing.assert_allclose(attended[row, : HEADS * head_size], expected.ravel(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(attended, alone)
    assert not attended[:, HEADS * head_size :].any(), "the padding stays 0"


def test_swiglu_is_silu_of_gate_times_up() -> None:
    gate_up, gated = 8 * random_floats(2, 2 * 37), np.zeros((2, 64), np.float32)
    plan = plan_of(intermediate_size=37, intermediate_columns=64, gate_up=gate_up, gated=gated)
    callable_kernel(forward.swiglu)(plan, 1, 3, 36)
    gate, up = gate_up[1, 3:36].astype(np.float64), gate_up[1, 40:73]
    np.testing.assert_allclose(gated[1, 3:36], gate / (1 + np.exp(-gate)) * up, rtol=1e-5, atol=1e-7)
    assert np.count_nonzero(gated) == 33


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("num_rows", [1, 3, 8, 19])
def test_products_are_those_of_numpy(num_rows: int, kind: str, adds: bool) -> None:
    """Matrix rows 2 to 29 of 31 times each row of activations; with float weights to the bits of one row alone."""
    size, columns, num_outputs = 70, padded(70), 31
    matrix, x = random_floats(num_outputs, size), random_floats(num_rows, size, seed=1)
    weights, scales = padded_columns(matrix, columns), np.ones(num_outputs, np.float32)
    numbers: Array = weights
    if kind == "bf16":
        numbers = round_to_bfloat16(weights)
        weights = (numbers.astype(np.uint32) << 16).view(np.float32)
    elif kind == "int8":
        numbers, scales = quantize_rows(weights)
        weights = numbers * scales[:, None]
    inputs = padded_columns(x, columns)
    packed = np.zeros(inputs.shape, np.int16 if kind == "int8" else np.float32)
    result = random_floats(num_rows, num_outputs, seed=2)
    expected = result * adds
    expected[:, 2:29] += x @ weights[2:29, :size].T
    expected[:, :2], expected[:, 29:] = result[:, :2], result[:, 29:]
    alone = result.copy()
    packed_scales = np.ones(num_rows, np.float32)
    arrays = {"weights": numbers, "scales": scales, "packed": packed, "packed_scales": packed_scales, "normed": inputs}
    plan = plan_of(**arrays, logits=result, sampled_logits=alone)
    to_weights, to_packed = {
        "fp32": (memory.floats, memory.floats),
        "bf16": (memory.halves, memory.floats),
        "int8": (memory.bytes_, memory.words),
    }[kind]

    @njit
    def run(address: int) -> None:
        plan = memory.plan_at(address)
        weights, packed, x = to_weights(plan.weights), to_packed(plan.packed), memory.floats(plan.normed)
        matrix, target = (0, 0, columns, columns, COLUMN_BLOCK), (memory.floats(plan.logits), num_outputs)
        for row in range(num_rows):
            factor = forward.pack(x, row * columns, packed, row * columns, columns)
            memory.floats(plan.packed_scales)[row] = factor
        forward.multiply_rows(plan, weights, packed, num_rows, matrix, target, 2, 29, adds)
        target = (memory.floats(plan.sampled_logits), num_outputs)
        for row in range(num_rows):
            rows = row, row + 1
            rest = forward.multiply_fours(plan, weights, packed, rows, matrix, target, 2, 29, adds)
            forward.multiply_ones(plan, weights, packed, rows, matrix, target, rest, 29, adds)

    run(plan.ctypes.data)
    tolerance = 2e-3 if kind == "int8" else 1e-5
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=10 * tolerance)
    np.testing.assert_allclose(result, alone, rtol=0, atol=1e-5 if kind == "int8" else 0)


def test_int8_activations_are_rounded_to_steps_of_the_largest() -> None:
    x, packed = random_floats(1, COLUMN_BLOCK), np.zeros(COLUMN_BLOCK, np.int16)
    plan = plan_of(normed=x, packed=packed)

    @njit
    def run(address: int) -> float:
        plan = memory.plan_at(address)
        factor: float = forward.pack(memory.floats(plan.normed), 0, memory.words(plan.packed), 0, COLUMN_BLOCK)
        return factor

    factor = run(plan.ctypes.data)
    np.testing.assert_array_equal(packed, np.rint(x[0] / np.abs(x).max() * forward.MAX_LEVEL))
    np.testing.assert_allclose(packed * factor, x[0], atol=np.abs(x).max() / forward.MAX_LEVEL)


def test_biases_are_added_to_some_columns_of_each_row() -> None:
    products, biases = random_floats(3, 5), random_floats(12, seed=1)
    expected = products.copy()
    expected[:, 1:4] += biases[7 + 1 : 7 + 4]
    plan = plan_of(biases=biases, residual=products)

    @njit
    def run(address: int) -> None:
        plan = memory.plan_at(address)
        forward.add_biases(plan, 3, (0, 7, 32, 32, COLUMN_BLOCK), (memory.floats(plan.residual), 5), 1, 4)

    run(plan.ctypes.data)
    np.testing.assert_array_equal(products, expected)
