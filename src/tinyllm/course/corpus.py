"""Reads the tutorial's corpus: JSON files in a folder, or their archive, which is read without unpacking."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tinyllm.corpus import json_records
from tinyllm.corpus.archive import read_members
from tinyllm.corpus.documents import Document, read_documents
from tinyllm.corpus.formats import format_of
from tinyllm.corpus.streams import decode_text, open_bytes
from tinyllm.course.layout import CORPUS_ARCHIVE, CORPUS_FOLDER
from tinyllm.errors import InputError

NO_CORPUS = (
    f"there is no corpus in {CORPUS_FOLDER}; run python train_vocab.py --download True, or name files with --data"
)


def corpus_inputs() -> list[str]:
    """The inputs to read: the folder's files if there are any, else the archive. Raises InputError without both."""
    if any(CORPUS_FOLDER.glob("*.json")):
        return [str(CORPUS_FOLDER / "*.json")]
    if CORPUS_ARCHIVE.exists():
        return [str(CORPUS_ARCHIVE)]
    raise InputError(NO_CORPUS)


def list_files() -> list[str]:
    """The corpus's files as sorted paths in the folder; without unpacked files, the archive's members as such paths."""
    if files := sorted(map(str, CORPUS_FOLDER.glob("*.json"))):
        return files
    corpus_inputs()
    return sorted(str(CORPUS_FOLDER / member.rpartition("/")[2]) for member in _list_members())


def first_source(inputs: list[str]) -> str | None:
    """The `Document.source` of the first file by name; None if there is only one file."""
    from tinyllm.corpus.sources import list_sources

    sources = [str(path) for path in list_sources(inputs)]
    if sources == [str(CORPUS_ARCHIVE)]:
        sources = sorted((f"{CORPUS_ARCHIVE}:{member}" for member in _list_members()), key=_file_name)
    return sources[0] if len(sources) > 1 else None


def read_corpus(files: list[str]) -> Iterator[Document]:
    """The stories in `files`, which are names from `list_files` or existing files."""
    if all(Path(file).exists() for file in files):
        yield from read_documents(files)
        return
    if not CORPUS_ARCHIVE.exists():
        raise InputError(f"{next(file for file in files if not Path(file).exists())} does not exist")
    names = {_file_name(file) for file in files}
    found = set()
    for document in read_documents([CORPUS_ARCHIVE]):
        if _file_name(document.source) in names:
            found.add(_file_name(document.source))
            yield document
        elif found == names:
            return
    if found != names:
        raise InputError(f"{CORPUS_ARCHIVE} has no {', '.join(sorted(names - found))}")


def first_record(file: str) -> Any:
    """The first item of a JSON file of the corpus."""
    if Path(file).exists():
        with open_bytes(Path(file)) as stream:
            records = json_records.read_array(decode_text(stream), file)
            return next((record for record, _ in islice(records, 1)), None)
    for document in read_corpus([file]):
        return {"story": document.text}
    return None


def _list_members() -> list[str]:
    archive_format = format_of(CORPUS_ARCHIVE.name)
    assert archive_format is not None
    with open_bytes(CORPUS_ARCHIVE, archive_format.compression) as stream:
        names = [member.name for member in read_members(stream)]
    return [name for name in names if name.endswith(".json") and not _file_name(name).startswith(".")]


def _file_name(source: str) -> str:
    return source.rpartition("/")[2].rpartition(":")[2]
