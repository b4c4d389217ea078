"""Which slots of an engine are open, and how many tokens each holds; the memory of a slot is the engine's task."""

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
CLOSED = -1


class SlotTable:
    """The slots of one engine, numbered from 0. A closed slot is reused before a new one is added, lowest first."""

    def __init__(self, context_length: int) -> None:
        self._context_length = context_length
        self._lengths = np.empty(0, np.int64)
        self._free: list[int] = []
        self.longest: list[int] = []
        """The most tokens that each slot held when it was closed."""

    @property
    def num_slots(self) -> int:
        """Slots that exist, open or closed: the engine has memory for each."""
        return len(self._lengths)

    @property
    def num_open(self) -> int:
        """Slots that are open."""
        return self.num_slots - len(self._free)

    def num_missing(self, num_slots: int) -> int:
        """Slots to add before `num_slots` can be opened. Raises ValueError for a negative number."""
        if num_slots < 0:
            raise ValueError(f"the number of slots to open is {num_slots}; it must not be negative")
        return max(0, num_slots - len(self._free))

    def free(self, num_slots: int) -> list[int]:
        """The closed slots that the next `open` of `num_slots` reuses."""
        return sorted(self._free)[:num_slots]

    def add(self, num_slots: int) -> None:
        """Adds `num_slots` closed slots, after the engine has allocated their memory."""
        for slot in range(self.num_slots, self.num_slots + num_slots):
            heapq.heappush(self._free, slot)
        self._lengths = np.append(self._lengths, np.full(num_slots, CLOSED))
        self.longest += [0] * num_slots

    def clear(self) -> None:
        """Removes every slot; none may be open."""
        assert self.num_open == 0, "an open slot has a user"
        self._lengths, self._free, self.longest = np.empty(0, np.int64), [], []

    def open(self, num_slots: int, length: int = 0) -> list[int]:
        """Opens `num_slots` slots that hold `length` tokens; returns their numbers."""
        slots = [heapq.heappop(self._free) for _ in range(num_slots)]
        self._lengths[slots] = length
        return slots

    def close(self, slots: Sequence[int]) -> None:
        """Closes `slots`. Raises ValueError, and closes none, if one is not open or occurs twice."""
        lengths = [self.length(slot) for slot in slots]
        if len(set(slots)) < len(slots):
            raise ValueError(f"slots {list(slots)} are closed together, and one occurs twice")
        for slot, length in zip(slots, lengths, strict=True):
            self.longest[slot] = max(self.longest[slot], length)
            self._lengths[slot] = CLOSED
            heapq.heappush(self._free, slot)

    def length(self, slot: int) -> int:
        """Tokens that `slot` holds. Raises ValueError if it is not open."""
        length = int(self._lengths[slot]) if 0 <= slot < self.num_slots else CLOSED
        if length == CLOSED:
            raise ValueError(f"slot {slot} is not open")
        return length

    def ends(self, num_slots: int) -> Integers:
        """The number of tokens in each of the first `num_slots` slots; 0 for a closed one."""
        return self._lengths[:num_slots].clip(0)

    def copied_length(self, slot: int, length: int | None) -> int:
        """The tokens that a copy of the first `length` tokens of `slot` holds; None is all.

        Raises ValueError if `slot` is not open or holds fewer.
        """
        held = self.length(slot)
        if length is None:
            return held
        if not 0 <= length <= held:
            raise ValueError(f"slot {slot} holds {held} tokens; its first {length} cannot be copied")
        return length

    def starts(self, slots: Sequence[int], counts: Integers) -> Integers:
        """The length of each of `slots` before `counts` tokens are read into them.

        Raises ValueError for a slot that is not open or occurs twice, and for texts that are empty or do not fit.
        """
        if not slots or len(set(slots)) < len(slots) or len(counts) != len(slots):
            raise ValueError(f"{len(counts)} texts are read into slots {list(slots)}; each text needs its own slot")
        if min(slots) < 0 or max(slots) >= self.num_slots:
            self.length(min(slots))
            self.length(max(slots))
        starts = self._lengths[list(slots)]
        if starts.min() >= 0 and counts.min() >= 1 and (starts + counts).max() <= self._context_length:
            return starts
        for slot, count in zip(slots, counts.tolist(), strict=True):
            self.check(slot, count)
        raise AssertionError("one of the slots is wrong")

    def check(self, slot: int, count: int) -> int:
        """The length of `slot` before `count` tokens are read into it. Raises as `starts`."""
        start = self.length(slot)
        if count < 1 or start + count > self._context_length:
            raise ValueError(
                f"slot {slot} holds {start} tokens and reads {count} more; at least 1 is needed, and at most "
                f"{self._context_length} fit together"
            )
        return start

    def advance_one(self, slot: int) -> None:
        """Adds one token to `slot`: as `advance`, in a tenth of the time."""
        self._lengths[slot] += 1

    def advance(self, slots: Sequence[int], counts: Integers | int) -> None:
        """Adds `counts` tokens to `slots`, after the engine has read them."""
        self._lengths[list(slots)] += counts
