"""Output of commands: results on stdout, everything else on stderr. Progress bars are in `progress`.

Characters outside a stream's encoding are written as escapes, so no command fails on an ASCII terminal or pipe.
On a terminal, control characters are escaped too, because generated text may contain terminal commands.
"""

import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cyclopts import Parameter

from tinyllm.addresses import with_addresses


class UnknownOption(ValueError):
    """A free-text argument looks like an option that the command does not have."""

    def __init__(self, option: str) -> None:
        super().__init__(f"unknown option {option}")
        self.option = option


STANDARD_OUTPUT = "standard output"
"""The name of stdout in place of a file's name in an OSError."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters of ASCII and Latin-1, except newline and tab."""


_PLAIN_WORDS: ContextVar[Sequence[str]] = ContextVar("plain_words", default=())


@contextmanager
def plain_words(words: Sequence[str]) -> Iterator[None]:
    """Accepts `words` as free text inside the block: those after `--` on the command line."""
    before = _PLAIN_WORDS.set(words)
    try:
        yield
    finally:
        _PLAIN_WORDS.reset(before)


def refuse_flag(_type: object, value: object) -> None:
    """Raises UnknownOption if a free-text argument looks like a flag, unless it is one of `plain_words`."""
    if value not in _PLAIN_WORDS.get() and re.fullmatch(r"--?[A-Za-z][\w.-]*(=.*)?", str(value)):
        raise UnknownOption(str(value))


TEXT_OR_DASH = Parameter(allow_leading_hyphen=True, validator=refuse_flag)
"""For arguments of free text and `-`: by default cyclopts reads `-` and `- Hello` as unknown flags."""


def show(text: str = "", *, end: str = "\n", flush: bool = False) -> None:
    """Writes a result to stdout. Raises OSError with the name "standard output" if writing fails."""
    if sys.stdout is None:
        return
    try:
        print(escape_controls(text) if sys.stdout.isatty() else text, end=end, flush=flush)
    except OSError as error:
        raise _named(error) from None


def show_json(value: Any) -> None:
    """Writes `value` as JSON that is valid on a terminal and in every encoding."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not is_unicode)
    show(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def note(message: str) -> None:
    """Prints one line for the user on stderr; never part of a command's result.

    If stderr cannot be written, later notes are dropped: a command's result does not depend on them.
    """
    if sys.stderr is None:
        return
    message = with_addresses(message)
    try:
        print(escape_controls(message) if sys.stderr.isatty() else message, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = _NullStream()


def escape_controls(text: str) -> str:
    r"""`text` with its control characters as escapes such as `\x1b`; newlines and tabs stay."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Prepares stdout and stderr for any text, and flushes stdout at the end.

    Closed streams (`>&-`, pythonw) are replaced by null streams; a line on stderr tells when a result is lost.
    Raises OSError with the name "standard output" if the final flush fails.
    """
    _open_missing_descriptors()
    if sys.stderr is None:
        sys.stderr = _NullStream()
    if sys.stdout is None:
        sys.stdout = _NullStream("standard output is closed: the output of this command is lost")
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
    """Flushes stdout; returns True and drops stdout if that fails, since Python would flush again at exit."""
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
    """`error` with "standard output" in place of a file's name; a BrokenPipeError is unchanged."""
    return error if isinstance(error, BrokenPipeError) else OSError(error.errno, error.strerror, STANDARD_OUTPUT)


def _open_missing_descriptors() -> None:
    """Opens closed descriptors 0 to 2 on the null device: otherwise the next opened file would get their number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _NullStream(io.TextIOBase):
    """A stream that drops all text; prints `warning` on stderr before the first text."""

    def __init__(self, warning: str = "") -> None:
        self._warning = warning

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if self._warning and text.strip():
            warning, self._warning = self._warning, ""
            note(warning)
        return len(text)
