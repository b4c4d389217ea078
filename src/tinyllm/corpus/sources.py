"""The sorted list of files that the user's inputs name: files, folders, patterns, addresses, `-` for standard input.

The list depends neither on the order of the inputs nor on the shell that expanded them. Only names are read. A file
that is an input itself, or matches a pattern, is listed with any ending; a folder's files need a known one.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinyllm.addresses import address, is_address, name_of, opened_address, shown
from tinyllm.corpus.formats import SUPPORTED, format_of
from tinyllm.corpus.own_outputs import is_own_output
from tinyllm.errors import InputError
from tinyllm.progress import SILENT, Note
from tinyllm.storage.remote.listing import list_objects

STANDARD_INPUT = Path("-")
_NAMES_SHOWN = 3


def list_sources(inputs: Sequence[str | Path], note: Note = SILENT.note) -> list[Path]:
    """The files that `inputs` name, sorted and without duplicates; standard input is `STANDARD_INPUT`.

    A folder contributes its files with supported endings, at any depth. Hidden files are ignored and links to folders
    are not followed. Folders that tinyllm wrote, such as runs, are left out. `note` receives one line about
    skipped files and one about such folders. A pattern contributes every file that matches.
    Raises InputError for an input that names no such file.
    """
    if not inputs:
        raise InputError(
            "no input named; name files, folders or patterns such as 'data/*.txt', or - for standard input"
        )
    skipped = _Skipped()
    named = sorted({path for item in inputs for path in _expand(str(item), skipped)})
    # If several paths lead to one file, such as a link to it, the first in sorted order is used.
    unique = {_resolve(path): path for path in reversed(named)}
    left_out = sorted({path for path in skipped.files if _resolve(path) not in unique})
    if left_out:
        links = "; links to folders are not followed" if any(path.is_dir() for path in left_out) else ""
        note(
            f"skipped {describe_skipped(left_out)}: of a folder only files that end in {SUPPORTED} are read; "
            f"name a file itself to read it as text{links}"
        )
    if skipped.outputs:
        note(f"left out {describe_skipped(sorted(skipped.outputs), 'folder')}: written by tinyllm")
    return sorted(unique.values())


@dataclass
class _Skipped:
    """Files and folders below a named folder that are not read."""

    files: list[Path] = field(default_factory=list)
    """Files with other endings, and links to folders."""
    outputs: list[Path] = field(default_factory=list)
    """Folders that tinyllm wrote."""


def describe_skipped(names: Sequence[object], noun: str = "file") -> str:
    """The number of names and the first three: "5 files (a.pdf, b.exe, c.doc, …)"."""
    first = ", ".join(map(printable, names[:_NAMES_SHOWN])) + (", …" if len(names) > _NAMES_SHOWN else "")
    return f"{len(names):,} {noun if len(names) == 1 else f'{noun}s'} ({first})"


def printable(name: object) -> str:
    """`name` with each character that is not printable as `?`, safe for a terminal and for UTF-8.

    An address has its `//`, and no query.
    """
    return "".join(character if character.isprintable() else "?" for character in shown(str(name)))


def file_name(path: Path) -> str:
    """The last name of a file's path or address, whose ending tells its format."""
    place = address(path)
    return path.name if place is None else name_of(place)


def unreadable(name: object, error: OSError) -> InputError:
    """The error for a read that the operating system refused."""
    return InputError(f"cannot read {printable(name)}: {error.strerror or error}")


def _expand(item: str, skipped: _Skipped) -> list[Path]:
    try:
        return _find(item, skipped)
    except OSError as error:
        raise unreadable(error.filename or item, error) from None


def _find(item: str, skipped: _Skipped) -> list[Path]:
    path = Path(item)
    if not item.strip():
        raise InputError("an input has no name; name a file, a folder or a pattern, and . for the working folder")
    if item == str(STANDARD_INPUT):
        return [STANDARD_INPUT]
    if (place := opened_address(item)) is not None:
        return _find_remote(place, skipped)
    if path.is_dir():
        return _list_folder(path, skipped)
    if path.exists():
        return [path]
    if not glob.has_magic(item):
        raise InputError(f"{printable(path)} does not exist")
    # Path.glob takes no absolute patterns.
    matches = [Path(match) for match in glob.iglob(item, recursive=True)]  # noqa: PTH207
    found = [file for match in matches for file in (_walk(match, skipped) if match.is_dir() else [match])]
    if not found:
        raise InputError(f"the pattern {printable(item)} matches no file{_skipped_hint(skipped)}")
    return found


def _find_remote(place: str, skipped: _Skipped) -> list[Path]:
    found, are_named = list_objects(place)
    paths = [Path(each.place) for each in found]
    chosen = [path for path in paths if are_named or format_of(file_name(path)) is not None]
    skipped.files += [path for path in paths if path not in chosen]
    if not chosen:
        raise InputError(f"{shown(place)} has no object that ends in {SUPPORTED}{_skipped_hint(skipped)}")
    return chosen


def _resolve(path: Path) -> Path:
    """The path without links, by which two names of one file are equal."""
    return path if is_address(path) else path.resolve()


def _list_folder(folder: Path, skipped: _Skipped) -> list[Path]:
    here = _Skipped()
    found = list(_walk(folder, here))
    if not found:
        raise InputError(f"{printable(folder)} has no file that ends in {SUPPORTED}{_skipped_hint(here)}")
    skipped.files += here.files
    skipped.outputs += here.outputs
    return found


def _skipped_hint(skipped: _Skipped) -> str:
    if skipped.outputs:
        return f"; {printable(min(skipped.outputs))} was written by tinyllm, and is left out"
    if not skipped.files:
        return ""
    return f"; it has {describe_skipped(sorted(skipped.files))}; name a file itself to read it as text"


def _walk(folder: Path, skipped: _Skipped) -> Iterator[Path]:
    """The files to read below `folder`; adds all else to `skipped`."""
    for parent, folders, names in os.walk(folder, onerror=_raise):
        if is_own_output(Path(parent), names):
            skipped.outputs.append(Path(parent))
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        skipped.files += [link for name in folders if (link := Path(parent, name)).is_symlink()]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if format_of(path.name) is not None and path.is_file():
                yield path
            else:
                skipped.files.append(path)


def _raise(error: OSError) -> None:
    """Raises the error of a folder that cannot be listed; by default `os.walk` ignores such errors."""
    raise error
