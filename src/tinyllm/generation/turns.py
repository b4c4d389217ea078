"""Who has the engine: texts of several threads, and several streams of one thread, take turns on it.

A turn is a whole `generate`, or one piece of a stream. The engine keeps one cache. A stream that is only begun takes
its cache along when another text gets its turn, so that it continues with exactly the numbers that it would have alone.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from tinyllm.generation.batch import Batch


class Turns:
    """The lock of one engine, and the batch whose cache is in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_engine: weakref.ref[Batch] | None = None

    @contextmanager
    def take(self, batch: Batch) -> Iterator[None]:
        """Waits until no other thread uses the engine; inside, the engine is that of `batch`.

        A stream holds the engine inside its turns only, so one that is never read to its end blocks nobody. Its cache
        is freed with it.
        """
        with self._lock:
            before = self._in_engine() if self._in_engine is not None else None
            if before is not batch:
                self._in_engine = None
                if before is not None and not before.ended:
                    before.leave_engine()
                batch.enter_engine()
                self._in_engine = weakref.ref(batch)
            yield
