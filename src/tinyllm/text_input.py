"""Reads text from arguments, files and standard input by one rule.

The rule: strict UTF-8, no byte order mark, `\\r\\n` and `\\r` become `\\n`, and no newline after the last line. So a
text has the same token ids from every source. `tinyllm.corpus` reads corpora as streams by the same rule.
"""

import codecs
import sys
from pathlib import Path
from typing import BinaryIO

from tinyllm.addresses import opened_address, shown
from tinyllm.errors import InputError
from tinyllm.storage.remote.streams import open_remote

BYTE_ORDER_MARK = "\ufeff"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_argument(argument: str, where: str) -> str:
    """The text of a command-line argument; `where` names it in messages.

    Raises InputError for bytes that are not UTF-8. In the C locale, Python passes each byte above 127 as a lone
    surrogate; this function decodes these bytes as UTF-8 in every locale.
    """
    try:
        content = argument.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        code = ord(argument[error.start])
        raise InputError(f"{where} has half a character, U+{code:04X}, at character {error.start}; remove it") from None
    return decode(content, where)


def read_file(path: Path, limit_bytes: int | None = None) -> str:
    """The text of a file. Raises InputError if it cannot be read, is not UTF-8, or exceeds `limit_bytes`.

    The file may be at an address.
    """
    try:
        with open_remote(place) if (place := opened_address(path)) else path.open("rb") as file:
            return _read(file, shown(path), limit_bytes)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def read_standard_input(limit_bytes: int | None = None) -> str:
    """The text of standard input up to its end. Raises InputError as `read_file` does, and if it is closed."""
    try:
        return _read(standard_input(), "standard input", limit_bytes)
    except OSError as error:
        raise InputError(f"cannot read standard input: {error.strerror or error}") from None


def standard_input() -> BinaryIO:
    """The binary stream of standard input. Raises InputError if it is closed, as by `<&-`."""
    if sys.stdin is None:
        raise InputError("there is no standard input: it is closed; give the text as an argument or a file")
    return sys.stdin.buffer


def decode(content: bytes, where: str) -> str:
    """`content` as text, with its last newline. Raises InputError naming line and byte of the first invalid UTF-8."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise not_utf8(where, line, error.start, error) from None
    return text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n")


def encodable(name: object) -> str:
    r"""`name` with bytes that are not UTF-8 as escapes such as `\udcff`; file names may hold any bytes."""
    return str(name).encode(errors="backslashreplace").decode()


def not_utf8(where: str, line: int, offset: int, error: UnicodeDecodeError) -> InputError:
    """The error for bytes that are not UTF-8; `line` counts from 1, `offset` from 0 in bytes."""
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
