"""The engine's slots of running texts, and of a few that ended: a common beginning is read once and copied.

A new text takes the longest beginning that it shares with another text. While that text is still reading it, the new
one waits. So n samples of a prompt, or a system prompt of many chats, cost one reading.
"""

from collections.abc import Sequence

from tinyllm.generation.engines.protocol import Engine
from tinyllm.machine.memory import check_memory, shortages_named
from tinyllm.serving.text import Text

FEWEST_SHARED_TOKENS = 16
"""A shorter beginning is read again: that takes no longer than copying it."""
NUM_KEPT = 4
"""Slots of texts that ended, kept for those that come next, such as the next turn of a chat."""


class Slots:
    """Gives texts their slots. At most `num_slots` texts have one, beside `NUM_KEPT` that ended."""

    def __init__(self, engine: Engine, num_slots: int) -> None:
        """Allocates all slots. Raises ResourceError if they do not fit into memory."""
        self.num_reused = 0
        """Tokens copied instead of read, since the start."""
        self._engine = engine
        self._ended: list[Text] = []
        """Texts whose slots are kept, the most recently used last."""
        total, context = num_slots + NUM_KEPT, engine.context_length
        what = f"max_slots {num_slots} with a context of {context} tokens"
        needed, available = engine.missing_bytes(total, context), engine.available_bytes()
        check_memory(what, needed, "use fewer slots", available, parameter="max_slots")
        with shortages_named():
            engine.close(engine.open(total))

    def place(self, text: Text, running: Sequence[Text]) -> None:
        """Gives `text` a slot with the longest beginning that others hold; none yet if one of `running` reads it.

        A prompt is scored while it is read, so a text that scores it begins with an empty slot.
        """
        if text.scores is not None and text.is_scored:
            if not any(other.scores is text.scores and other.slot is not None for other in running):
                text.scores.restart()
                (text.slot,) = self._engine.open(1)
            return
        source, length = self._longest_beginning(text.window[:-1], running)
        if source is None or length < FEWEST_SHARED_TOKENS:
            (text.slot,) = self._engine.open(1)
        elif source.held >= length:
            assert source.slot is not None
            (text.slot,) = self._engine.fork(source.slot, 1, length)
            text.held = length
            self.num_reused += length
            if source in self._ended:
                self._ended.append(self._ended.pop(self._ended.index(source)))

    def restart(self, text: Text) -> None:
        """Gives `text`, whose window slid, an empty slot."""
        self._close(text)
        (text.slot,) = self._engine.open(1)

    def release(self, text: Text, *, keep: bool) -> None:
        """Takes the slot of a text that ended; `keep` lets others begin with it for a while."""
        if text.slot is None:
            return
        if not keep or text.slid or text.held < FEWEST_SHARED_TOKENS:
            self._close(text)
            return
        del text.window[text.held :]
        self._ended.append(text)
        if len(self._ended) > NUM_KEPT:
            self._close(self._ended.pop(0))

    def close(self) -> None:
        """Closes the slots of texts that ended."""
        while self._ended:
            self._close(self._ended.pop())

    def _close(self, text: Text) -> None:
        assert text.slot is not None
        self._engine.close([text.slot])
        text.slot = None

    def _longest_beginning(self, tokens: list[int], running: Sequence[Text]) -> tuple[Text | None, int]:
        """The text that shares most of the first `tokens`, and how many; None if no slot has any."""
        best: Text | None = None
        longest = 0
        for other in (*self._ended, *running):
            if other.slot is None or longest == len(tokens):
                continue
            length = min(shared_length(tokens, other.window), other.sharable)
            if length > longest:
                best, longest = other, length
        return best, longest


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of tokens at the start of both."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
