"""The time that a run still needs, and times and sizes in words, for displays of a run."""

import math
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds that only grow, as `time.monotonic` does."""


class Pace:
    """The time that a run still needs: the mean time of an update in this session, evaluations included."""

    def __init__(self, num_steps: int, max_minutes: float, clock: Clock) -> None:
        self._num_steps, self._clock = num_steps, clock
        self._end = clock() + max_minutes * 60 if max_minutes else math.inf
        self._first: tuple[int, float] | None = None
        self._newest = (0, 0.0)

    def reached(self, step: int) -> None:
        """Takes the time of a finished update. The first one of a session is not typical: it starts the clock."""
        self._newest = (step, self._clock())
        self._first = self._first or self._newest

    def seconds_left(self) -> float | None:
        """Seconds until the last update or the time limit, whichever comes first; None before the second update."""
        limit = self._end - self._clock()
        step, moment = self._newest
        if self._first is None or step == self._first[0]:
            return None if math.isinf(limit) else max(0.0, limit)
        mean = (moment - self._first[1]) / (step - self._first[0])
        return max(0.0, min(limit, (self._num_steps - step) * mean - (self._clock() - moment)))


def show_time(seconds: float | None) -> str:
    """Minutes and seconds, hours too if there are any, or days and hours."""
    if seconds is None:
        return "-:--"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def show_size(num_bytes: int) -> str:
    """Megabytes, or gigabytes with one decimal."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 0.9995e9 else f"{num_bytes / 1e6:.0f} MB"
