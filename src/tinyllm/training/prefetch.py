"""Reads the input of the next update in a thread, while the current update is computed.

Shards are mapped files: a disk or a network may take longer to bring the windows of an update than the update takes.

A thread reads one update and ends. So a run has nothing to close, holds the input of two updates at most, and ends
without waiting for storage. The thread touches NumPy alone: a thread inside PyTorch may abort a process that ends.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """The input of one step after another: that of the next step is read in advance."""

    def __init__(self, read: Callable[[int], T], num_steps: int) -> None:
        """`read` returns the input of a step, in this thread or in another; no step from `num_steps` on is read."""
        self.read, self.num_steps = read, num_steps
        self._ahead: tuple[int, Future[T]] | None = None

    def take(self, step: int) -> T:
        """The input of `step`; starts to read that of the next step. Raises what `read` raised for `step`."""
        ahead = self._ahead
        result = ahead[1].result() if ahead is not None and ahead[0] == step else self.read(step)
        if step + 1 < self.num_steps and (ahead is None or ahead[0] != step + 1):
            self._ahead = step + 1, self._start(step + 1)
        return result

    def forget(self) -> None:
        """Drops what was read in advance; call it after a change of what `read` returns."""
        self._ahead = None

    def _start(self, step: int) -> Future[T]:
        future: Future[T] = Future()

        def fill() -> None:
            try:
                future.set_result(self.read(step))
            except BaseException as error:  # noqa: BLE001 (raised again by `take`)
                future.set_exception(error)

        threading.Thread(target=fill, name="input", daemon=True).start()
        return future
