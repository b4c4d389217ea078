"""Reads files into documents: the only reader that later stages use.

Everything streams: memory is bounded by one chunk and one document, for any size of the corpus. The limits are 2**30
characters for a document, and 2**27 for an item of a JSON array or a field of a table. In an archive the limit is
2**25, because a few kilobytes may unpack to gigabytes. For Parquet the bound is one row group's column.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tinyllm.corpus import archive, json_records, tables, zip_archive
from tinyllm.corpus.formats import SUPPORTED, Content, Format, format_of, format_of_named
from tinyllm.corpus.parquet import read_column
from tinyllm.corpus.sources import STANDARD_INPUT, describe_skipped, file_name, list_sources, printable
from tinyllm.corpus.streams import Readable, decode_text, decompress, open_bytes, open_file, unify_newlines
from tinyllm.corpus.text import DocumentRule, split_text
from tinyllm.errors import FormatError, InputError
from tinyllm.progress import SILENT, Note

ARCHIVE_LIMIT_CHARACTERS = 2**25


@dataclass(frozen=True, slots=True)
class Document:
    """One text: a story, an article, a chapter."""

    text: str
    """Not empty, without surrounding whitespace."""
    source: str
    """The file, or `ARCHIVE:MEMBER`."""


def read_documents(
    inputs: Sequence[str | Path],
    *,
    documents: DocumentRule = "auto",
    text_key: str | None = None,
    note: Note = SILENT.note,
) -> Iterator[Document]:
    """The documents of all files in `inputs`, in the order of the sorted file names, without empty ones.

    `inputs` are files, folders, patterns, and `-` for standard input, which is read as plain text. `documents` sets how
    plain text is split (see `split_text`), `text_key` the key or column that holds the text in other formats.
    `note` receives one line about skipped files of folders, and one line for each archive with skipped members.
    Raises InputError if a file cannot be read or there is no document.
    """
    sources = list_sources(inputs, note)
    num_documents = 0
    for path in sources:
        for document in read_source(path, documents=documents, text_key=text_key, note=note):
            num_documents += 1
            yield document
    if not num_documents:
        raise no_documents(sources)


def read_source(
    path: Path, *, documents: DocumentRule = "auto", text_key: str | None = None, note: Note = SILENT.note
) -> Iterator[Document]:
    """The documents of one file of `list_sources`, as `read_documents` reads it; there may be none."""
    for source, text in _read_file(path, _Reading(documents, text_key, note)):
        if text := text.strip():
            yield Document(text, source)


def no_documents(sources: Sequence[Path]) -> InputError:
    """The error for files without text."""
    names = ", ".join(map(printable, sources[:3])) + (", …" if len(sources) > 3 else "")
    return InputError(f"the corpus is empty: {len(sources)} file(s) read and no text in them ({names})")


@dataclass(frozen=True)
class _Reading:
    """The options of `read_documents`."""

    documents: DocumentRule
    text_key: str | None
    note: Note


def _read_file(path: Path, reading: _Reading) -> Iterator[tuple[str, str]]:
    """The (source, text) pairs of a file."""
    name = printable(path)
    file_format = Format("text") if path == STANDARD_INPUT else format_of_named(file_name(path))
    if file_format.content == "parquet":
        yield from ((name, text) for text in read_column(path, reading.text_key))
        return
    if file_format.content == "zip":
        with open_file(path) as file:
            yield from _read_archive(name, zip_archive.read_members(file, name), reading)
        return
    with open_bytes(path, file_format.compression) as stream:
        if file_format.content == "tar":
            yield from _read_archive(name, archive.read_members(stream), reading)
        else:
            pieces = decode_text(stream, refuse_binary=not file_format.known)
            for text in _read_texts(stream.name, pieces, file_format.content, reading):
                yield stream.name, text


class _Member(Readable, Protocol):
    """A member of a tar or zip archive."""

    @property
    def name(self) -> str: ...


def _read_archive(archive_name: str, members: Iterable[_Member], reading: _Reading) -> Iterator[tuple[str, str]]:
    num_read = 0
    skipped: list[str] = []
    for member in members:
        member_format = format_of(member.name)
        if member.name.rpartition("/")[2].startswith("."):
            continue
        if member_format is None or member_format.content in ("tar", "zip"):
            skipped.append(member.name)
            continue
        name = f"{archive_name}:{member.name}"
        if member_format.content == "parquet":
            raise FormatError(f"{name}: Parquet cannot be read as a stream; extract the archive and name its folder")
        num_read += 1
        stream = decompress(name, member, member_format.compression)
        limited = _LimitedText(decode_text(stream), name)
        for text in _read_texts(name, iter(limited), member_format.content, reading):
            limited.num_characters = 0
            yield name, text
    left_out = f"skipped {describe_skipped(skipped)}" if skipped else ""
    if not num_read:
        reason = f" ({left_out})" if left_out else ""
        raise InputError(f"{archive_name} has no file that ends in {SUPPORTED}{reason}")
    if left_out:
        reading.note(f"{left_out} of {archive_name}: only files that end in {SUPPORTED} are read, no archives inside")


class _LimitedText:
    """Passes on the text of an archive's member, and counts the characters of the current document against a limit."""

    def __init__(self, pieces: Iterator[str], name: str) -> None:
        self.num_characters = 0
        """Characters since the end of the last document."""
        self._pieces = pieces
        self._name = name

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self.num_characters += len(piece)
            if self.num_characters > ARCHIVE_LIMIT_CHARACTERS:
                raise InputError(
                    f"{self._name} has a document of more than {ARCHIVE_LIMIT_CHARACTERS} characters; "
                    "extract the archive and name its folder, if it is no mistake"
                )
            yield piece


def _read_texts(name: str, pieces: Iterator[str], content: Content, reading: _Reading) -> Iterator[str]:
    if content == "text":
        return split_text(unify_newlines(pieces), reading.documents, name)
    if content in tables.SEPARATORS:
        return tables.read_texts(unify_newlines(pieces), name, tables.SEPARATORS[content], reading.text_key)
    read_records = json_records.read_array if content == "json" else json_records.read_lines
    return (json_records.text_of(record, place, reading.text_key) for record, place in read_records(pieces, name))
