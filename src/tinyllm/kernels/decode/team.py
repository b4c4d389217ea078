"""Helper threads for the compiled program: each waits inside it for chunks of work, and sleeps when none come.

The leader never depends on a helper (see `program`), so nothing here needs to be exact: a helper that is woken
late misses some work, and the leader does it.
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
"""Weights that make a further thread worth its coordination; a smaller model is read from one core's own cache."""
CHUNKS_PER_THREAD = 4
PATIENCE = 20_000
"""Rounds that a helper waits for work before it sleeps: about a millisecond, the time between two tokens and more."""


def pick_num_threads(weights_bytes: int) -> int:
    """Threads that help to read so many bytes for each token."""
    return max(1, min(num_available_cores(), weights_bytes // BYTES_PER_THREAD))


def yield_function() -> int:
    """Address of the system's function by which a thread lets others run; 0 where there is none."""
    library = ctypes.CDLL("kernel32" if sys.platform == "win32" else None)
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 if hasattr(library, name) else 0


class Team:
    """The leader of one plan and the threads that help it. They end when the team is no longer used."""

    def __init__(self, kernels: Kernels, plan: Plan, num_threads: int) -> None:
        """Writes into `plan` what concerns the team. Helpers keep hold of all memory that they wait on."""
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
        """Gets sleeping helpers up; costs next to nothing when all are awake."""
        for helper in self._helpers:
            helper.num_calls += 1
            if helper.asleep:
                helper.asleep = False
                helper.alarm.release()


class _Helper:
    """What the leader and one helper know of each other."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.asleep = False
        self.dismissed = False
        self.alarm = threading.Semaphore(0)
        self.thread: threading.Thread | None = None


def _help(helper: _Helper, kernels: Kernels, plan: Plan, queue: npt.NDArray[np.int64]) -> None:
    address = plan.ctypes.data
    assert plan["queue"] == queue.ctypes.data, "this thread keeps alive what it waits on"
    while not helper.dismissed:
        num_calls = helper.num_calls
        kernels(address, at.HELP)
        helper.asleep = True
        # Python's lock may have come late, with a pass begun meanwhile: whoever sleeps now would sleep through it.
        if helper.num_calls == num_calls:
            helper.alarm.acquire()
        helper.asleep = False


def _dismiss(helpers: list[_Helper]) -> None:
    """Ends the helpers, and waits until they have: compiled code must not run while Python takes it down."""
    for helper in helpers:
        helper.dismissed = True
        helper.alarm.release()
    for helper in helpers:
        if helper.thread is not None and helper.thread is not threading.current_thread():
            helper.thread.join()
