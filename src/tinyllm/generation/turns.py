"""Turns on the engine: texts of several threads, and several streams of one thread, use it one after the other.

A turn is a whole `generate`, or one piece of a stream. Each text keeps its own slots of the engine between its turns.
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tinyllm.generation.engines.protocol import Engine


class FairLock:
    """A lock that threads get in the order in which they asked for it.

    `threading.Lock` goes to any waiting thread: one that releases and takes it again in a loop can keep it for long.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._mutex:
            if not self._is_held:
                self._is_held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        try:
            gate.acquire()
        except BaseException:
            self._give_up(gate)
            raise

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_held = False

    def _give_up(self, gate: threading.Lock) -> None:
        """Leaves the queue after an interrupt, or passes the lock on if it came at the same moment."""
        with self._mutex:
            if gate in self._waiting:
                self._waiting.remove(gate)
                return
        self.__exit__()


class Turns:
    """The lock of one engine, and the slots that nobody will use again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = FairLock()
        self._abandoned: deque[Mapping[int, int]] = deque()

    def abandon(self, slots: Mapping[int, int]) -> None:
        """Leaves the values of `slots` to be closed at the next turn.

        Any thread may call this at any time: Python's garbage collector does, for a stream that is not read to its end.
        """
        self._abandoned.append(slots)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Waits until no other thread uses the engine; inside, no other thread can."""
        with self._lock:
            while self._abandoned:
                self._engine.close(list(self._abandoned.popleft().values()))
            yield
