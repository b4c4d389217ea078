"""Arguments for texts, shared by commands: a text or a file, and the key of the text in records."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm import text_input

TextKey = Annotated[
    str | None, Parameter(help="Key or column of the text in JSON, CSV, TSV and Parquet; default: story, else text.")
]


def read_text(text: str | None, file: Path | None, what: str = "the text", limit_bytes: int | None = None) -> str:
    """The text: `text`, standard input for `-` and None, or the content of `file`; messages call an argument `what`.

    Raises InputError if it is not UTF-8, or if standard input or a file exceeds `limit_bytes`.
    """
    if file is not None:
        return text_input.read_file(file, limit_bytes)
    if text is None or text == "-":
        return text_input.read_standard_input(limit_bytes)
    return text_input.read_argument(text, what)


def read_text_key(text_key: str | None) -> str | None:
    """The value of --text-key, decoded as UTF-8 in every locale. Raises InputError if it is not UTF-8."""
    return None if text_key is None else text_input.read_argument(text_key, "--text-key")
