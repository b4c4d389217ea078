"""Splits plain text into documents: at separators, at newlines, at blank lines, or not at all.

Text is processed in pieces, in linear time; memory is bounded by one document, which has a limit.
"""

from collections.abc import Iterator
from typing import Literal

from tinyllm.errors import InputError

DocumentRule = Literal["auto", "file", "line", "blank-line", "endoftext"]
END_OF_TEXT = "<|endoftext|>"
DOCUMENT_LIMIT_CHARACTERS = 2**30
_ADVICE = f"cut it with lines {END_OF_TEXT}, or choose `documents=line` or blank-line"


def split_text(pieces: Iterator[str], rule: DocumentRule, name: str) -> Iterator[str]:
    """The documents of one text file, with empty documents and surrounding whitespace left in.

    `auto` and `endoftext` end a document at each `<|endoftext|>`; without one, the file is one document. `file` never
    splits, `line` ends a document at each newline, `blank-line` at each run of empty lines.
    Raises InputError for a document of more than 2**30 characters, too large for the memory of most machines.
    """
    match rule:
        case "auto" | "endoftext":
            return _split_at(END_OF_TEXT, pieces, name)
        case "line":
            return split_lines(pieces, name)
        case "blank-line":
            return _join_until_blank(split_lines(pieces, name), name)
        case "file":
            return _join_all(pieces, name)


def split_lines(pieces: Iterator[str], name: str, advice: str = _ADVICE) -> Iterator[str]:
    """The lines of a text without their newlines; `advice` ends the message for a line over the limit."""
    return _split_at("\n", pieces, name, advice)


def _split_at(separator: str, pieces: Iterator[str], name: str, advice: str = _ADVICE) -> Iterator[str]:
    overlap = len(separator) - 1
    parts = _Parts(name, advice)
    carry = ""
    for piece in pieces:
        first, *others = (carry + piece).split(separator)
        if others:
            parts.append(first)
            yield parts.join()
            yield from others[:-1]
        unfinished = others[-1] if others else first
        # A separator may straddle two pieces, so its longest possible beginning is carried to the next piece.
        cut = max(0, len(unfinished) - overlap)
        parts.append(unfinished[:cut])
        carry = unfinished[cut:]
    parts.append(carry)
    yield parts.join()


def _join_until_blank(lines: Iterator[str], name: str) -> Iterator[str]:
    parts = _Parts(name)
    for line in lines:
        if line.strip():
            parts.append(line + "\n")
        else:
            yield parts.join()
    yield parts.join()


def _join_all(pieces: Iterator[str], name: str) -> Iterator[str]:
    parts = _Parts(name)
    for piece in pieces:
        parts.append(piece)
    yield parts.join()


class _Parts:
    """Collects the pieces of the current document and joins them once; enforces the limit."""

    def __init__(self, name: str, advice: str = _ADVICE) -> None:
        self._name = name
        self._advice = advice
        self._pieces: list[str] = []
        self._num_characters = 0

    def append(self, piece: str) -> None:
        self._pieces.append(piece)
        self._num_characters += len(piece)
        if self._num_characters > DOCUMENT_LIMIT_CHARACTERS:
            raise InputError(
                f"{self._name} has a document of more than {DOCUMENT_LIMIT_CHARACTERS} characters", hint=self._advice
            )

    def join(self) -> str:
        text = "".join(self._pieces)
        self._pieces.clear()
        self._num_characters = 0
        return text
