"""Tests CSV and TSV on files that Python's csv wrote, and on every malformed row."""

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.corpus import tables, text
from tinyllm.corpus.tables import read_texts
from tinyllm.errors import FormatError, InputError

# Carriage returns become newlines before a table is read; lone surrogates are not text.
FIELDS = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=20)


def pieces_of(content: str, size: int = 7) -> Iterator[str]:
    return (content[start : start + size] for start in range(0, len(content), size))


def read(content: str, text_key: str | None = None, separator: str = ",", size: int = 7) -> list[str]:
    return list(read_texts(pieces_of(content, size), "a.csv", separator, text_key))


@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=5), st.sampled_from([",", "\t"]), st.integers(1, 50))
def test_tables_written_by_csv_are_read_back(rows: list[tuple[str, str]], separator: str, size: int) -> None:
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows([("id", "text"), *rows])
    assert read(file.getvalue(), separator=separator, size=size) == [story for _, story in rows]


def test_the_column_is_story_else_text_unless_one_is_named() -> None:
    content = "text,story,other\na,b,c\n"
    assert [read(content), read(content, "other"), read("text\na\n")] == [["b"], ["c"], ["a"]]


def test_blank_lines_are_skipped_and_the_last_row_needs_no_newline() -> None:
    assert read("text,id\na,1\n\nb,2") == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv has no row"),
        ("\n\n", "a.csv has no row"),
        ("id,body\n1,a\n", "a.csv, line 1 has no column 'story' or 'text'; columns seen: 'id', 'body'; .*`text_key`"),
        ("id,text\n1,a\n1\n", "a.csv, line 3 has 1 fields, but the header has 2"),
        ('id,text\n1,"a\nb"\n1,a,b\n', "a.csv, line 4 has 3 fields, but the header has 2"),
        ('text\na\n"b\nc\n', "a.csv, line 3: a quote opens here .* is never closed"),
        ('text\n"a"b\n', "a.csv, line 2: text follows a closing quote"),
    ],
)
def test_malformed_tables_are_refused_with_the_line(content: str, message: str) -> None:
    with pytest.raises((FormatError, InputError), match=message) as raised:
        read(content)
    assert "\n" not in str(raised.value)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="no column 'body'; columns seen: 'id', 'text'"):
        read("id,text\n1,a\n", "body")


def test_long_fields_are_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = csv.field_size_limit()
    long = "a\n" * before
    assert read(f'text\n"{long}"\n', size=2**16) == [long]
    monkeypatch.setattr(tables, "FIELD_LIMIT_CHARACTERS", 100)
    with pytest.raises(FormatError, match=r"line 2: a field is longer than 100 characters"):
        read(f'text\n"{long}"\n', size=2**16)
    assert csv.field_size_limit() == before, "the limit belongs to the whole process"


def test_a_line_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "DOCUMENT_LIMIT_CHARACTERS", 100)
    with pytest.raises(InputError, match="more than 100 characters; a row of a table must be shorter"):
        read("text\n" + "a" * 101)
