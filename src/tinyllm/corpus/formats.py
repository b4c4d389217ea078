"""Which files hold text, told by the endings of their names; nothing is opened here.

A name ends in what it holds (`.txt`, `.jsonl`, `.json`, `.parquet`, `.tar`) and may add how it is compressed
(`.gz`, `.zst`). Parquet compresses inside, so it has no such second ending.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

Content = Literal["text", "jsonl", "json", "parquet", "tar"]
Compression = Literal["none", "gzip", "zstd"]
Meaning = TypeVar("Meaning")

SUPPORTED = ".txt, .jsonl, .json, .tar (each also .gz or .zst), .tgz or .parquet"

_CONTENTS: dict[str, Content] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".tar": "tar",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Format:
    """What a file holds and what is wrapped around it."""

    content: Content
    compression: Compression = "none"


def format_of(name: str) -> Format | None:
    """The format that the ending of `name` stands for, in any case; None for other endings.

    >>> format_of("TinyStories_all_data.tar.gz")
    Format(content='tar', compression='gzip')
    """
    name = name.lower()
    if name.endswith(".tgz"):
        return Format("tar", "gzip")
    stem, compression = _cut_ending(name, _COMPRESSIONS)
    _, content = _cut_ending(stem, _CONTENTS)
    if content is None or (content == "parquet" and compression):
        return None
    return Format(content, compression or "none")


def _cut_ending(name: str, endings: Mapping[str, Meaning]) -> tuple[str, Meaning | None]:
    for ending, meaning in endings.items():
        if name.endswith(ending):
            return name.removesuffix(ending), meaning
    return name, None
