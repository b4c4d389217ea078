"""Reads a JSON text a piece at a time: its objects and lists may be larger than the memory.

A caller walks through the large ones and takes the small ones whole:

    for key in reader.members():
        if key == "files":
            for name in reader.members():
                use(name, reader.value())
        else:
            use(key, reader.value())

Every error is a ValueError, or a RecursionError for values that are nested too deeply.
"""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

CHUNK_CHARACTERS = 2**16
_DECODER = json.JSONDecoder()
_NUMBER_REST = re.compile(r"[-+.0-9eE]*")
_SPACE = re.compile(r"[ \t\n\r]*")


class JsonReader:
    """The values of one JSON text, in their order; a value that was passed is not in memory."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._text, self._place = "", 0

    def value(self) -> Any:
        """The next value as Python objects."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError:
                if not self._read_more():
                    raise
                continue
            # A number may go on in the next piece: `1` of `1.5` is a number, and so is `1` of `1e5`.
            rest = _NUMBER_REST.match(self._text, end)
            if rest is not None and rest.end() == len(self._text) and self._read_more():
                continue
            self._place = end
            return value

    def members(self) -> Iterator[str]:
        """The keys of the next value, an object; the caller takes each key's value before the next key."""
        for _ in self._parts("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"a key is {key!r}; it should be a text")
            self._take(":")
            yield key

    def items(self) -> Iterator[None]:
        """Once for each item of the next value, a list; the caller takes the item before the next turn."""
        return self._parts("[", "]")

    def _parts(self, opening: str, closing: str) -> Iterator[None]:
        """Once before each part between the brackets."""
        self._take(opening)
        if self._peek() == closing:
            self._take(closing)
            return
        yield
        while self._take(",", closing) == ",":
            yield

    def begins(self, bracket: str) -> bool:
        """Whether the next value begins with `bracket`."""
        return self._peek() == bracket

    def end(self) -> None:
        """Raises ValueError if more than white space follows."""
        if self._peek():
            raise ValueError("more text follows the end of the value")

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            assert match is not None, "white space may be empty"
            self._place = match.end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read_more():
                return ""

    def _take(self, *allowed: str) -> str:
        """Passes the next character, which must be one of `allowed`."""
        found = self._peek()
        if found not in allowed or not found:
            raise ValueError(f"{found or 'the end'!r} stands where {' or '.join(allowed)} should be")
        self._place += 1
        return found

    def _read_more(self) -> bool:
        """Adds the next piece of the file, as long as what is left of the earlier ones; False at its end."""
        more = self._file.read(max(CHUNK_CHARACTERS, len(self._text) - self._place))
        if more:
            self._text, self._place = self._text[self._place :] + more, 0
        return bool(more)
