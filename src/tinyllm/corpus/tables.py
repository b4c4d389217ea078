"""Reads CSV and TSV files, one record a row.

The dialect is RFC 4180: a field in double quotes may hold separators, newlines and doubled quotes.
Memory is bounded by one row; the lengths of lines and fields have limits.
"""

import csv
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinyllm.corpus.json_records import find_key
from tinyllm.corpus.text import split_lines
from tinyllm.errors import FormatError, InputError

if TYPE_CHECKING:
    from _csv import Reader

SEPARATORS = {"csv": ",", "tsv": "\t"}
FIELD_LIMIT_CHARACTERS = 2**27
_ADVICE = "a row of a table must be shorter; is a quote missing?"


def read_texts(pieces: Iterator[str], name: str, separator: str, text_key: str | None) -> Iterator[str]:
    """The texts of one column: `text_key`, else `story`, else `text`. The first row holds the names of the columns.

    `pieces` must have `\\n` as newlines. Empty rows are skipped. Raises InputError with the columns seen if the column
    is missing, and FormatError with the line of a malformed row.
    """
    table = csv.reader((line + "\n" for line in split_lines(pieces, name, _ADVICE)), delimiter=separator, strict=True)
    rows = _read(table, name)
    header, place = next(rows, (None, name))
    if header is None:
        raise InputError(f"{name} has no row; the first row of a table names its columns")
    key = find_key(header, place, text_key, "column")
    column = header.index(key)
    for row, place in rows:
        if len(row) != len(header):
            raise FormatError(
                f"{place} has {len(row)} fields, but the header has {len(header)}; "
                "put fields that hold separators or quotes in double quotes"
            )
        yield row[column]


def _read(table: "Reader", name: str) -> Iterator[tuple[list[str], str]]:
    """The rows that are not empty, each with its place ("FILE, line 3")."""
    while True:
        line = table.line_num + 1
        try:
            row = _next_row(table)
        except csv.Error as error:
            raise FormatError(f"{name}, line {line}: {_explain(str(error))}") from None
        if row is None:
            return
        if row:
            yield row, f"{name}, line {line}"


def _next_row(table: "Reader") -> list[str] | None:
    # csv has one limit for the whole process: change it only while a row is read.
    before = csv.field_size_limit(FIELD_LIMIT_CHARACTERS)
    try:
        return next(table, None)
    finally:
        csv.field_size_limit(before)


def _explain(message: str) -> str:
    if "unexpected end of data" in message:
        return "a quote opens here or in the row's next lines and is never closed; the file is cut off or damaged"
    if "field larger than" in message:
        return f"a field is longer than {FIELD_LIMIT_CHARACTERS} characters; is a quote missing?"
    if "expected after" in message:
        return f"text follows a closing quote; write a quote inside a quoted field twice ({message})"
    return message
