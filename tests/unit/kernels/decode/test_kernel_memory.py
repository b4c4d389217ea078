"""Casts, bits and atomics against NumPy and Python."""

import itertools
import threading

import numpy as np
import pytest

from unit.kernels.decode.compiled import Array, memory, njit, njit_with, plan_of


def test_a_plan_is_read_and_written_by_field() -> None:
    plan = plan_of(num_layers=3, top_p=0.5)

    @njit
    def run(address: int) -> None:
        plan = memory.plan_at(address)
        plan.num_rows = plan.num_layers + 1
        plan.min_p = plan.top_p / 2

    run(plan.ctypes.data)
    assert (int(plan["num_rows"]), float(plan["min_p"])) == (4, 0.25)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("bytes_", np.int8),
        ("words", np.int16),
        ("halves", np.uint16),
        ("integers", np.int64),
        ("floats", np.float32),
        ("doubles", np.float64),
    ],
)
def test_casts_read_numbers_of_their_type(name: str, dtype: type) -> None:
    numbers: Array = np.array([1, 2, 100], dtype)
    cast = getattr(memory, name)

    @njit
    def run(address: int) -> float:
        return float(cast(address)[1] + cast(address)[2])

    assert run(numbers.ctypes.data) == 102


@pytest.mark.parametrize("exponent", [-126.0, -1.0, 0.0, 127.0])
def test_power_of_two(exponent: float) -> None:
    @njit
    def run(exponent: float) -> float:
        return float(memory.power_of_two(np.float32(exponent)))

    assert run(exponent) == 2.0**exponent


def test_bits_become_the_float_that_they_encode() -> None:
    @njit
    def run(bits: int) -> float:
        return float(memory.float_from_bits(bits))

    for number in np.array([0, 1.5, -2e-30, 3e38], np.float32):
        assert run(int(number.view(np.uint32))) == number


def test_keys_sort_as_their_floats_and_larger_is_the_maximum() -> None:
    @njit
    def key(number: float) -> int:
        return int(memory.key_of(np.float32(number)))

    @njit
    def larger(a: float, b: float) -> float:
        return float(memory.larger(np.float32(a), np.float32(b)))

    numbers = [-3e38, -1.0, -1e-40, 0.0, 1e-40, 0.5, 1.0, 3e38]
    keys = [key(number) for number in numbers]
    assert keys == sorted(set(keys))
    assert [larger(a, b) for a, b in itertools.pairwise(numbers)] == [np.float32(b) for b in numbers[1:]]


def test_atomic_additions_of_threads_are_all_counted() -> None:
    @njit_with(nogil=True)
    def run(address: int, count: int) -> None:
        numbers = memory.integers(address)
        for _ in range(count):
            memory.atomic_add(numbers, 0, 1)
        memory.atomic_store(numbers, 1, memory.atomic_load(numbers, 0))

    numbers = np.zeros(2, np.int64)
    run(numbers.ctypes.data, 0)
    threads = [threading.Thread(target=run, args=(numbers.ctypes.data, 100_000)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers[0] == 200_000
    assert 100_000 <= numbers[1] <= 200_000
