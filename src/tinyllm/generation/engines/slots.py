"""Which slots of an engine are open, and how many tokens each holds; the memory of a slot is the engine's task."""

import heapq
from collections.abc import Sequence

CLOSED = -1


class SlotTable:
    """The slots of one engine, numbered from 0. A closed slot is reused before a new one is added, lowest first."""

    def __init__(self, context_length: int) -> None:
        self._context_length = context_length
        self._lengths: list[int] = []
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
        """Slots to add before `num_slots` can be opened."""
        return max(0, num_slots - len(self._free))

    def free(self, num_slots: int) -> list[int]:
        """The closed slots that the next `open` of `num_slots` reuses."""
        return sorted(self._free)[:num_slots]

    def add(self, num_slots: int) -> None:
        """Adds `num_slots` closed slots, after the engine has allocated their memory."""
        for _ in range(num_slots):
            heapq.heappush(self._free, self.num_slots)
            self._lengths.append(CLOSED)
            self.longest.append(0)

    def clear(self) -> None:
        """Removes every slot; none may be open."""
        assert self.num_open == 0, "an open slot has a user"
        self._lengths, self._free, self.longest = [], [], []

    def open(self, num_slots: int, length: int = 0) -> list[int]:
        """Opens `num_slots` slots that hold `length` tokens; returns their numbers."""
        slots = [heapq.heappop(self._free) for _ in range(num_slots)]
        for slot in slots:
            self._lengths[slot] = length
        return slots

    def close(self, slots: Sequence[int]) -> None:
        """Closes `slots`. Raises ValueError for a slot that is not open."""
        for slot in slots:
            length = self.length(slot)
            self.longest[slot] = max(self.longest[slot], length)
            self._lengths[slot] = CLOSED
            heapq.heappush(self._free, slot)

    def length(self, slot: int) -> int:
        """Tokens that `slot` holds. Raises ValueError if it is not open."""
        if not 0 <= slot < self.num_slots or self._lengths[slot] == CLOSED:
            raise ValueError(f"slot {slot} is not open")
        return self._lengths[slot]

    def starts(self, slots: Sequence[int], counts: Sequence[int]) -> list[int]:
        """The length of each of `slots` before `counts` tokens are read into them.

        Raises ValueError for a slot that is not open or occurs twice, and for texts that are empty or do not fit.
        """
        if not slots or len(set(slots)) < len(slots) or len(counts) != len(slots):
            raise ValueError(f"{len(counts)} texts are read into slots {list(slots)}; each text needs its own slot")
        starts = [self.length(slot) for slot in slots]
        for slot, start, count in zip(slots, starts, counts, strict=True):
            if count < 1 or start + count > self._context_length:
                raise ValueError(
                    f"slot {slot} holds {start} tokens and reads {count} more; at least 1 is needed, and at most "
                    f"{self._context_length} fit together"
                )
        return starts

    def advance(self, slots: Sequence[int], counts: Sequence[int]) -> None:
        """Adds `counts` tokens to `slots`, after the engine has read them."""
        for slot, count in zip(slots, counts, strict=True):
            self._lengths[slot] += count
