"""How commands speak: results on stdout, everything else on stderr. Bars and tables are in `progress`.

Characters that a stream's encoding lacks are written as escapes, so no command fails on an ASCII terminal or pipe. On a
terminal control characters are escaped too: a model's text may hold sequences that would change the terminal.
"""

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cyclopts import Parameter


class UnknownOption(ValueError):
    """An argument of free text is an option that the command does not have."""

    def __init__(self, option: str) -> None:
        super().__init__(f"unknown option {option}")
        self.option = option


STANDARD_OUTPUT = "standard output"
"""Stands where an OSError has the name of a file."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters of ASCII and Latin-1, without newline and tab."""


def refuse_flag(_type: object, value: object) -> None:
    """Raises UnknownOption where an argument is a flag that the command does not have."""
    if re.fullmatch(r"--?[A-Za-z][\w.-]*(=.*)?", str(value)):
        raise UnknownOption(str(value))


TEXT_OR_DASH = Parameter(allow_leading_hyphen=True, validator=refuse_flag)
"""For arguments of free text and `-`: by itself cyclopts takes `-` and `- Hello` for unknown flags."""


def show(text: str = "", *, end: str = "\n", flush: bool = False) -> None:
    """Writes a result to stdout. Raises OSError, named "standard output", where it cannot be written."""
    if sys.stdout is None:
        return
    try:
        print(escape_controls(text) if sys.stdout.isatty() else text, end=end, flush=flush)
    except OSError as error:
        raise _named(error) from None


def show_json(value: Any) -> None:
    """Writes `value` as JSON, which stays JSON on a terminal and in every encoding."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not is_unicode)
    show(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def note(message: str) -> None:
    """One line on stderr for the person at the keyboard; never part of a command's result.

    A stderr that takes no more text is given up: a command's result does not depend on it.
    """
    if sys.stderr is None:
        return
    try:
        print(escape_controls(message) if sys.stderr.isatty() else message, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = _Nowhere()


def escape_controls(text: str) -> str:
    r"""`text` with its control characters as escapes such as `\x1b`; newlines and tabs stay."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Makes stdout and stderr fit for whatever a command writes, and flushes stdout at the end.

    Closed streams (`>&-`, pythonw) are replaced by ones that go nowhere, with a line on stderr once a result is lost.
    Raises OSError, named "standard output", where the last of the output cannot be written.
    """
    _open_missing_descriptors()
    if sys.stderr is None:
        sys.stderr = _Nowhere()
    if sys.stdout is None:
        sys.stdout = _Nowhere("standard output is closed: what this command prints is lost")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except SystemExit:
        _flush_output()
        raise
    _flush_output()


def give_up_output() -> bool:
    """Whether stdout takes no more text. It is given up then: Python would write the rest again at its end."""
    try:
        _flush_output()
    except OSError:
        sys.stdout = None
        return True
    return False


def _flush_output() -> None:
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            raise _named(error) from None


def _named(error: OSError) -> OSError:
    """`error` with the stream's name where a file's name would be; a broken pipe stays one."""
    return error if isinstance(error, BrokenPipeError) else OSError(error.errno, error.strerror, STANDARD_OUTPUT)


def _open_missing_descriptors() -> None:
    """Opens descriptors 0 to 2 where they are closed: else the next file opened would be taken for a stream."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _Nowhere(io.TextIOBase):
    """A stream that keeps nothing; `told` is said on stderr when the first text comes."""

    def __init__(self, told: str = "") -> None:
        self._told = told

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if self._told and text.strip():
            told, self._told = self._told, ""
            note(told)
        return len(text)
