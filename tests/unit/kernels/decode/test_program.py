"""The parts of the program that are not arithmetic; `generation/engines/test_cpu_engine.py` tests whole passes."""

import itertools

import numpy as np
import pytest

from tinyllm.kernels.decode import plan as at
from unit.kernels.decode.compiled import memory, njit, plan_of, program, random_floats


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 203])
@pytest.mark.parametrize("num_chunks", [1, 4, 7])
def test_the_parts_of_all_chunks_cover_a_job_once(count: int, num_chunks: int) -> None:
    @njit
    def run(count: int, chunk: int, num_chunks: int) -> tuple[int, int]:
        bounds: tuple[int, int] = program.part(count, chunk, num_chunks)
        return bounds

    bounds = [run(count, chunk, num_chunks) for chunk in range(num_chunks)]
    assert list(itertools.chain(*(range(*bound) for bound in bounds))) == list(range(count))


def test_embed_copies_the_row_of_each_token() -> None:
    table, tokens, residual = random_floats(6, 32), np.array([4, 0]), np.zeros((2, 20), np.float32)
    matrices = np.array([(0, 0, 6, 32)], at.MATRIX)
    arrays = {"weights": table, "scales": np.ones(6, np.float32), "tokens": tokens, "residual": residual}
    plan = plan_of(**arrays, matrices=matrices, num_rows=2, hidden_size=20)

    @njit
    def run(address: int) -> None:
        plan = memory.plan_at(address)
        program.embed(plan, memory.floats(plan.weights))

    run(plan.ctypes.data)
    np.testing.assert_array_equal(residual, table[tokens, :20])


def test_a_ticket_without_chunks_gives_a_helper_nothing_to_do() -> None:
    queue = np.zeros(at.QUEUE_SIZE, np.int64)
    plan = plan_of(queue=queue, idle_rounds=10)

    @njit
    def run(address: int) -> bool:
        plan = memory.plan_at(address)
        program.help_leader(plan, memory.floats(plan.weights), memory.floats(plan.packed))
        found: bool = program.take_chunks(plan, memory.floats(plan.weights), memory.floats(plan.packed))
        return found

    assert run(plan.ctypes.data) is False
    assert not queue.any()
