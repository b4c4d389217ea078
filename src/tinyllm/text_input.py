"""Texts that a person gives: an argument, a file, standard input. All of them become text by one rule.

The rule: strict UTF-8, no byte order mark, `\\r\\n` and `\\r` read as `\\n`, and no newline after the last line. So the
same text has the same token ids however it arrives. Corpora are read as streams by `tinyllm.corpus`, by the same rule.
"""

import codecs
import sys
from pathlib import Path
from typing import BinaryIO

from tinyllm.errors import InputError

BYTE_ORDER_MARK = "\ufeff"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_argument(argument: str, where: str) -> str:
    """The text of a command line's argument; `where` names it in messages.

    Raises InputError for bytes that are not UTF-8. Under a locale such as C, Python hands every byte above 127 over as
    a lone surrogate; the bytes behind them are decoded as UTF-8 here, whatever the locale is.
    """
    try:
        content = argument.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        code = ord(argument[error.start])
        raise InputError(f"{where} has half a character, U+{code:04X}, at character {error.start}; remove it") from None
    return decode(content, where)


def read_file(path: Path, limit_bytes: int | None = None) -> str:
    """The text of a file. Raises InputError where it cannot be read, is not UTF-8 or has more than `limit_bytes`."""
    try:
        with path.open("rb") as file:
            return _read(file, str(path), limit_bytes)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def read_standard_input(limit_bytes: int | None = None) -> str:
    """The text of standard input up to its end. Raises InputError as `read_file` does, and where there is none."""
    try:
        return _read(standard_input(), "standard input", limit_bytes)
    except OSError as error:
        raise InputError(f"cannot read standard input: {error.strerror or error}") from None


def standard_input() -> BinaryIO:
    """The bytes of standard input. Raises InputError where the process has none, as after `<&-`."""
    if sys.stdin is None:
        raise InputError("there is no standard input: it is closed; give the text as an argument or a file")
    return sys.stdin.buffer


def decode(content: bytes, where: str) -> str:
    """`content` as text, its last newline included. Raises InputError naming line and byte of what is not UTF-8."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise not_utf8(where, line, error.start, error) from None
    return text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n")


def encodable(name: object) -> str:
    r"""`name` with bytes that are not UTF-8 as escapes such as `\udcff`; a file's name may hold any bytes."""
    return str(name).encode(errors="backslashreplace").decode()


def not_utf8(where: str, line: int, offset: int, error: UnicodeDecodeError) -> InputError:
    """The error for bytes that are not UTF-8: `line` counts from 1, `offset` in bytes from 0."""
    if offset == 0 and error.object[:2] in _UTF16_MARKS:
        advice = "it begins like UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
    else:
        advice = "convert it to UTF-8, for instance with iconv, or leave it out"
    found = f"0x{error.object[error.start]:02x}, {error.reason}"
    return InputError(f"{where} is not UTF-8 at line {line}, byte {offset} ({found}); {advice}")


def _read(file: BinaryIO, where: str, limit_bytes: int | None) -> str:
    content = file.read() if limit_bytes is None else file.read(limit_bytes + 1)
    if limit_bytes is not None and len(content) > limit_bytes:
        raise InputError(f"{where} has more than {limit_bytes} bytes; cut it")
    return decode(content, where).removesuffix("\n")
