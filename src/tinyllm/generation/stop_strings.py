"""Cuts a text at the first of several stop strings, while the text arrives in pieces of any size.

A piece may end with the beginning of a stop string. That part is held back until the next piece decides.
"""

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the first complete stop string; the result does not depend on the pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Adds `piece`; returns the text that is certain to precede every stop string, or "" once one was `found`."""
        if self.found:
            return ""
        if not self._stops:
            return piece
        text, self._held = self._held + piece, ""
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            # The stop string that is complete first, as if the text came one character at a time.
            self.found = True
            return text[: min(ends)[1]]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        text, self._held = text[: len(text) - held], text[len(text) - held :]
        return text

    def finish(self) -> str:
        """Returns the text held back, after the last piece."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
