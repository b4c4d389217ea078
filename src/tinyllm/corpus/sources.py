"""From what a person names (files, folders, patterns, `-`) to the sorted list of files to read.

The list is the same whatever the order of the arguments and whichever shell expanded them. Only names are looked at.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tinyllm.corpus.formats import SUPPORTED, format_of
from tinyllm.errors import InputError

STANDARD_INPUT = Path("-")


def list_sources(inputs: Sequence[str | Path]) -> list[Path]:
    """The files that `inputs` name, sorted, each once; standard input is `STANDARD_INPUT`.

    A folder gives its files with supported endings, at any depth, without hidden ones and without following links to
    folders; a pattern gives those among its matches. Raises InputError for a name that leads to no such file.
    """
    if not inputs:
        raise InputError(
            "no input named; name files, folders or patterns such as 'data/*.txt', or - for standard input"
        )
    named = sorted({path for item in inputs for path in _expand(str(item))})
    # Of several ways to one file, such as a link to it, the first is kept.
    once = {path.resolve(): path for path in reversed(named)}
    return sorted(once.values())


def printable(name: object) -> str:
    """`name` fit for a message: what a terminal or UTF-8 cannot take becomes `?`."""
    return "".join(character if character.isprintable() else "?" for character in str(name))


def unreadable(name: object, error: OSError) -> InputError:
    """The one-line story of a read that the system refused."""
    return InputError(f"cannot read {printable(name)}: {error.strerror or error}")


def _expand(item: str) -> list[Path]:
    try:
        return _find(item)
    except OSError as error:
        raise unreadable(error.filename or item, error) from None


def _find(item: str) -> list[Path]:
    path = Path(item)
    if item == str(STANDARD_INPUT):
        return [STANDARD_INPUT]
    if path.is_dir():
        return _require(_walk(path), f"{printable(path)} has no file that ends in {SUPPORTED}")
    if path.exists():
        if format_of(path.name) is None:
            raise InputError(
                f"{printable(path)} does not end in {SUPPORTED}; "
                "rename it, or hand plain text in through standard input: tinyllm ... - < FILE"
            )
        return [path]
    if not glob.has_magic(item):
        raise InputError(f"{printable(path)} does not exist")
    # Path.glob takes no absolute patterns.
    matches = (Path(match) for match in glob.iglob(item, recursive=True))  # noqa: PTH207
    return _require(
        (file for match in matches for file in (_walk(match) if match.is_dir() else _supported(match))),
        f"the pattern {printable(item)} matches no file that ends in {SUPPORTED}",
    )


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            yield from _supported(Path(parent, name))


def _stop(error: OSError) -> None:
    """A folder that cannot be listed is an error; `os.walk` would pass over it."""
    raise error


def _supported(path: Path) -> list[Path]:
    readable = format_of(path.name) is not None and not path.name.startswith(".") and path.is_file()
    return [path] if readable else []


def _require(paths: Iterable[Path], complaint: str) -> list[Path]:
    found = list(paths)
    if not found:
        raise InputError(complaint)
    return found
