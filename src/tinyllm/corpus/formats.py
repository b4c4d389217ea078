"""The format of a file, from the ending of its name; no file is opened.

An ending names the content (`.txt`, `.md`, `.rst`, `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, `.tar`, `.zip`) and
optionally the compression (`.gz`, `.bz2`, `.xz`, `.zst`). Parquet and zip compress inside, so they take no second one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

Content = Literal["text", "jsonl", "json", "csv", "tsv", "parquet", "tar", "zip"]
Compression = Literal["none", "gzip", "bzip2", "xz", "zstd"]
Meaning = TypeVar("Meaning")

SUPPORTED = (
    ".txt, .md, .rst, .jsonl, .json, .csv, .tsv, .tar (each also .gz, .bz2, .xz or .zst), .tgz, .zip or .parquet"
)

_CONTENTS: dict[str, Content] = {
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".tar": "tar",
    ".zip": "zip",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_SHORT_TARS: dict[str, Compression] = {".tgz": "gzip", ".tbz2": "bzip2", ".txz": "xz"}
_COMPRESSED_INSIDE = ("parquet", "zip")


@dataclass(frozen=True, slots=True)
class Format:
    """Content and compression of a file."""

    content: Content
    compression: Compression = "none"
    known: bool = True
    """Whether the ending names the content; False means that a file named by the user is read as text."""


def format_of(name: str) -> Format | None:
    """The format for the ending of `name`, in upper or lower case; None for an unknown ending.

    >>> format_of("TinyStories_all_data.tar.gz")
    Format(content='tar', compression='gzip', known=True)
    """
    name = name.lower()
    _, short_tar = _cut_ending(name, _SHORT_TARS)
    if short_tar:
        return Format("tar", short_tar)
    stem, compression = _cut_ending(name, _COMPRESSIONS)
    _, content = _cut_ending(stem, _CONTENTS)
    if content is None or (content in _COMPRESSED_INSIDE and compression):
        return None
    return Format(content, compression or "none")


def format_of_named(name: str) -> Format:
    """The format of a file that the user named: by its ending, else text. Compression always follows the ending.

    >>> format_of_named("server.log.gz")
    Format(content='text', compression='gzip', known=False)
    """
    _, compression = _cut_ending(name.lower(), _COMPRESSIONS)
    return format_of(name) or Format("text", compression or "none", known=False)


def _cut_ending(name: str, endings: Mapping[str, Meaning]) -> tuple[str, Meaning | None]:
    for ending, meaning in endings.items():
        if name.endswith(ending):
            return name.removesuffix(ending), meaning
    return name, None
