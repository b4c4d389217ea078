"""Ends a text at the first of several strings, while the text still arrives in pieces of any size.

A piece may end with the beginning of a stop string: that much is held back until it is clear.
"""

from collections.abc import Sequence


class StopStrings:
    """Lets a text through until a stop string is whole; cuts that off, whatever the pieces it came in."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """What of the text is surely before any stop string. After one was `found`, nothing more."""
        if self.found:
            return ""
        text, self._held = self._held + piece, ""
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            # The one that is whole first, as if the text came one character at a time.
            self.found = True
            return text[: min(ends)[1]]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        text, self._held = text[: len(text) - held], text[len(text) - held :]
        return text

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
