"""Helper threads: how many, when they run, and when they end."""

import ctypes
import queue
import threading
from typing import cast

import pytest

from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode import team
from tinyllm.kernels.decode.cache import Kernels


@pytest.mark.parametrize(("megabytes", "expected"), [(0, 1), (1, 1), (7, 2), (1_000, 4)])
def test_threads_grow_with_the_weights_up_to_the_cores(
    megabytes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "num_available_cores", lambda: 4)
    assert team.pick_num_threads(megabytes * 2**20) == expected


def test_the_yield_function_can_be_called() -> None:
    address = team.yield_function()
    assert address == 0 or ctypes.CFUNCTYPE(ctypes.c_int)(address)() in (0, 1)


@pytest.mark.parametrize(("num_threads", "num_chunks"), [(1, 1), (3, 12)])
def test_a_job_has_several_chunks_for_each_of_several_threads(num_threads: int, num_chunks: int) -> None:
    plan = at.new_plan()
    crew = team.Team(cast(Kernels, lambda plan, role: None), plan, num_threads)
    assert int(plan["num_chunks"]) == num_chunks
    crew.close()


def test_helpers_run_when_woken_and_end_when_the_team_closes() -> None:
    rounds: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    plan = at.new_plan()
    crew = team.Team(cast(Kernels, lambda plan, role: rounds.put((plan, role))), plan, 2)
    assert rounds.get(timeout=10) == (plan.ctypes.data, at.HELP)
    helper = crew._helpers[0]
    for _ in range(3):
        while not helper.asleep:
            pass
        crew.wake()
        assert rounds.get(timeout=10) == (plan.ctypes.data, at.HELP)
    crew.close()
    assert helper.thread
    assert not helper.thread.is_alive()
    assert all(thread.name != "tinyllm-helper" or thread is not helper.thread for thread in threading.enumerate())
