"""Reads JSON records: the items of an array as a stream, or one record a line, each with its place for messages.

The array reader holds a window of the file and decodes one item after the other. The window grows only if an item is
cut off at its end, so memory is bounded by one item, which has a limit. `text_of` selects the text of a record, for
Parquet too.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import NoReturn

from tinyllm.corpus.text import split_lines
from tinyllm.errors import FormatError, InputError

TEXT_KEYS = ("story", "text")
ITEM_LIMIT_CHARACTERS = 2**27
_WINDOW_CHARACTERS = 2**20
_SPACES = " \t\r\n"
_SPACE = re.compile(f"[{_SPACES}]*")
_DECODER = json.JSONDecoder()
# A cut-off token of at most this length looks like a syntax error to the decoder: -Infinity, or \\ud83d\\ude00.
_LONGEST_TOKEN = 16


def read_array(pieces: Iterator[str], name: str) -> Iterator[tuple[object, str]]:
    """The items of a file that holds one JSON array, each with its place ("FILE, item 3").

    Raises FormatError with line and byte if the file is not an array, is cut off, or is not JSON.
    """
    window = _Window(pieces, name)
    if window.next_character() != "[":
        raise FormatError(
            f"{name} is not an array of objects: it does not begin with [; "
            "a file with one object a line should be named .jsonl"
        )
    window.position += 1
    num_items = 0
    at_end = window.next_character() == "]"
    while not at_end:
        num_items += 1
        place = f"{name}, item {num_items}"
        yield window.decode_item(place), place
        separator = window.next_character()
        at_end = separator == "]"
        if not at_end and separator != ",":
            window.fail(place, "expected a comma or ] after it")
        window.position += not at_end
    window.position += 1
    if window.next_character():
        window.fail(name, "something follows the array's ]")


def read_lines(pieces: Iterator[str], name: str) -> Iterator[tuple[object, str]]:
    """The records of a JSON Lines file, each with its place ("FILE, line 3"); blank lines are skipped."""
    advice = "JSON Lines have one record a line; a file that is one array should be named .json"
    for number, line in enumerate(split_lines(pieces, name, advice), start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            yield _DECODER.decode(line), place
        except json.JSONDecodeError as error:
            if error.pos >= len(line.rstrip()) or error.msg.startswith("Unterminated"):
                raise FormatError(f"{place}: the JSON is cut off at column {len(line) + 1}; {advice}") from None
            raise FormatError(f"{place}, column {error.colno}: not JSON: {error.msg}") from None
        except (RecursionError, ValueError) as error:
            raise FormatError(f"{place}: {_refusal(error)}") from None


def text_of(record: object, place: str, text_key: str | None) -> str:
    """The text of a record: the value of `text_key`, else `story`, else `text`. A string is its own text.

    A null is an empty text; the strings of a list are joined as lines. Raises InputError with the keys seen if the key
    is missing, FormatError if its value is not text.
    """
    if isinstance(record, str):
        return _checked(record, place)
    if not isinstance(record, dict):
        raise FormatError(f"{place} is {_kind(record)}, neither an object nor a string")
    key = find_key(record, place, text_key)
    text = record[key]
    if text is None:
        return ""
    if isinstance(text, list):
        other = next((line for line in text if not isinstance(line, str)), None)
        if other is not None or None in text:
            raise FormatError(f"{place}: key {key!r} holds a list with {_kind(other)} in it, not a list of strings")
        text = "\n".join(text)
    if not isinstance(text, str):
        raise FormatError(f"{place}: key {key!r} holds {_kind(text)}, not text", hint="choose another with `text_key`")
    return _checked(text, place)


def find_key(keys: Iterable[str], place: str, text_key: str | None, what: str = "key") -> str:
    """The key that holds the text; messages call it a `what`. Raises InputError with the keys seen if it is missing."""
    keys = list(keys)
    candidates = (text_key,) if text_key is not None else TEXT_KEYS
    for key in candidates:
        if key in keys:
            return key
    seen = ", ".join(ascii(key)[:40] for key in keys[:12]) + (", …" if len(keys) > 12 else "") or "none"
    missing = " or ".join(map(repr, candidates))
    raise InputError(
        f"{place} has no {what} {missing}; {what}s seen: {seen}", hint="name the one with the text: `text_key`"
    )


class _Window:
    """The part of a JSON text that is in memory, with its position in the file."""

    def __init__(self, pieces: Iterator[str], name: str) -> None:
        self._pieces = pieces
        self._name = name
        self._text = ""
        self.position = 0
        self._num_lines_before = 0
        self._num_bytes_before = 0

    def next_character(self) -> str:
        """The next character that is not whitespace, with `position` moved to it; empty at the end of the file."""
        while True:
            character = self._text[self.position : self.position + 1]
            if character and character not in _SPACES:
                return character
            spaces = _SPACE.match(self._text, self.position)
            assert spaces is not None, "the pattern matches nothing too"
            self.position = spaces.end()
            if self.position == len(self._text) and not self._grow():
                return ""

    def decode_item(self, place: str) -> object:
        """Decodes the item at `position` and moves `position` past it."""
        self.next_character()
        while True:
            try:
                item, self.position = _DECODER.raw_decode(self._text, self.position)
                return item
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _LONGEST_TOKEN
                if not (cut_off and self._grow(place)):
                    whole = not cut_off or self._text.rstrip().endswith("]")
                    self.position = error.pos if whole else len(self._text)
                    self.fail(place, f"not JSON: {error.msg}")
            except (RecursionError, ValueError) as error:
                self.fail(place, _refusal(error))

    def fail(self, place: str, reason: str) -> NoReturn:
        """Raises FormatError at `position`; if only whitespace follows, the file is reported as cut off."""
        at_end = not self.next_character()
        line = self._num_lines_before + self._text.count("\n", 0, self.position) + 1
        offset = self._num_bytes_before + len(self._text[: self.position].encode())
        if at_end:
            raise FormatError(f"{place}: the JSON is cut off at line {line}, byte {offset}; get the file again")
        raise FormatError(f"{place}: {reason} (line {line}, byte {offset})")

    def _grow(self, place: str | None = None) -> bool:
        """Drops the text before `position` and reads at least as much as remains; False at the end of the file."""
        left = self._text[self.position :]
        if len(left) > ITEM_LIMIT_CHARACTERS:
            raise FormatError(f"{place or self._name} is longer than {ITEM_LIMIT_CHARACTERS} characters")
        # Doubling the window keeps the work on a long item linear, although its decoding starts over each time.
        added, num_characters = [left], 0
        while num_characters < max(len(left), _WINDOW_CHARACTERS) and (piece := next(self._pieces, "")):
            added.append(piece)
            num_characters += len(piece)
        if not num_characters:
            return False
        passed = self._text[: self.position]
        self._num_lines_before += passed.count("\n")
        self._num_bytes_before += len(passed.encode())
        self._text = "".join(added)
        self.position = 0
        return True


def _checked(text: str, place: str) -> str:
    """`text`, after a check that it can be encoded as UTF-8: JSON can spell single surrogates, which cannot."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise FormatError(f"{place}: \\u{code:04x} is half a surrogate pair, not a character") from None
    return text


def _refusal(error: Exception) -> str:
    """The reason why the decoder refuses valid JSON."""
    return "nested too deeply" if isinstance(error, RecursionError) else f"a number with too many digits ({error})"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", int: "a number"}
    return kinds.get(type(value), type(value).__name__)
