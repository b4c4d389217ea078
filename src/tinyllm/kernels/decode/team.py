"""Helper threads of the compiled program: each waits for chunks inside it, and sleeps after a while without one.

The leader never depends on a helper (see `program`). A helper that wakes late misses chunks, which the leader runs.
"""

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.plan import Plan
from tinyllm.machine.device import num_available_cores

BYTES_PER_THREAD = 3 * 2**20
"""Weights for which one more thread is worth its coordination; a smaller model fits one core's cache."""
CHUNKS_PER_THREAD = 4
PATIENCE = 20_000
"""Rounds that a helper waits for a chunk before it sleeps: about 1 ms, longer than the time between two tokens."""


def pick_num_threads(weights_bytes: int) -> int:
    """Number of threads that read `weights_bytes` a token fastest: one for each 3 MB, at most one for each core."""
    return max(1, min(num_available_cores(), weights_bytes // BYTES_PER_THREAD))


def yield_function() -> int:
    """Address of the system's function by which a thread lets others run; 0 if there is none."""
    library = ctypes.CDLL("kernel32" if sys.platform == "win32" else None)
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 if hasattr(library, name) else 0


class Team:
    """The helper threads of one plan. They end when the team is garbage, or at `close`."""

    def __init__(self, kernels: Kernels, plan: Plan, num_threads: int) -> None:
        """Writes the team's fields of `plan`. Helpers keep the memory alive that they wait on."""
        queue = np.zeros(at.QUEUE_SIZE, np.int64)
        plan["queue"], plan["idle_rounds"], plan["yield_function"] = queue.ctypes.data, PATIENCE, yield_function()
        plan["num_chunks"] = CHUNKS_PER_THREAD * num_threads if num_threads > 1 else 1
        self.num_threads = num_threads
        self._queue = queue
        self._helpers = [_Helper() for _ in range(num_threads - 1)]
        for helper in self._helpers:
            arguments = (helper, kernels, plan, queue)
            helper.thread = threading.Thread(target=_help, args=arguments, daemon=True, name="tinyllm-helper")
            helper.thread.start()
        self.close: Callable[[], object] = weakref.finalize(self, _dismiss, self._helpers)

    def wake(self) -> None:
        """Wakes sleeping helpers; costs next to nothing if none sleeps."""
        for helper in self._helpers:
            helper.num_calls += 1
            if helper.asleep:
                helper.asleep = False
                helper.alarm.release()


class _Helper:
    """State that the leader and one helper share."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.asleep = False
        self.dismissed = False
        self.alarm = threading.Semaphore(0)
        self.thread: threading.Thread | None = None


def _help(helper: _Helper, kernels: Kernels, plan: Plan, queue: npt.NDArray[np.int64]) -> None:
    address = plan.ctypes.data
    assert plan["queue"] == queue.ctypes.data, "the queue belongs to the plan"
    while not helper.dismissed:
        num_calls = helper.num_calls
        kernels(address, at.HELP)
        helper.asleep = True
        # A pass may have begun while this thread waited for Python's lock; sleeping would miss it.
        if helper.num_calls == num_calls:
            helper.alarm.acquire()
        helper.asleep = False


def _dismiss(helpers: list[_Helper]) -> None:
    """Ends the helpers and waits for them: compiled code must not run while Python unloads it."""
    for helper in helpers:
        helper.dismissed = True
        helper.alarm.release()
    for helper in helpers:
        if helper.thread is not None and helper.thread is not threading.current_thread():
            helper.thread.join()
