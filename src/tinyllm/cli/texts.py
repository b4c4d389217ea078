"""Arguments for texts, shared by commands: a text, a file or standard input, and the key of the text in records."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm import text_input
from tinyllm.cli.paths import expand_home
from tinyllm.errors import ArgumentsError

FILE_PREFIX = "FILE:"
"""The beginning of an argument that names the file of a text."""
TextKey = Annotated[
    str | None, Parameter(help="Key or column of the text in JSON, CSV, TSV and Parquet; default: story, else text.")
]


def read_text(text: str | None, file: Path | None, what: str = "the text", limit_bytes: int | None = None) -> str:
    """The text: `text`, the file after `FILE:`, standard input for `-` and None, or the content of `file`.

    Messages call an argument `what`. Raises ArgumentsError if `FILE:` names no file, and InputError if the text is not
    UTF-8, or if standard input or a file exceeds `limit_bytes`.
    """
    if text == FILE_PREFIX:
        raise ArgumentsError(f"FILE: names no file; give FILE:path, or {what} in quotes")
    if file is None and text is not None and text.startswith(FILE_PREFIX):
        file = expand_home(text.removeprefix(FILE_PREFIX))
    if file is not None:
        return text_input.read_file(file, limit_bytes)
    if text is None or text == "-":
        return text_input.read_standard_input(limit_bytes)
    return text_input.read_argument(text, what)


def read_text_key(text_key: str | None) -> str | None:
    """The value of --text-key, decoded as UTF-8 in every locale. Raises InputError if it is not UTF-8."""
    return None if text_key is None else text_input.read_argument(text_key, "--text-key")
