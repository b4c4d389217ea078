"""The inputs that decide the bytes of a shard directory, and their fingerprints.

The content of a source counts, not its folder. So the fingerprint is the same on another machine with the same files.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tinyllm import storage
from tinyllm.addresses import address
from tinyllm.corpus.formats import format_of_named
from tinyllm.corpus.sources import STANDARD_INPUT, file_name, unreadable
from tinyllm.corpus.split import VALIDATION_FRACTION
from tinyllm.corpus.text import DocumentRule
from tinyllm.errors import InputError, UsageError
from tinyllm.machine.device import num_available_cores
from tinyllm.storage.remote.listing import size_of, version_of
from tinyllm.tokenizer.codec import Tokenizer

PROCESS_BYTES = 2**21
"""Bytes of text per process: starting a process takes as long as encoding a few times this amount."""
MOST_WORKERS = 1024
"""Limit of worker processes, each of which has its own memory."""
SHARD_TOKENS = 2**24


@dataclass(frozen=True)
class Options:
    """The options that decide the bytes of a shard directory, with the tokenizer."""

    tokenizer_sha256: str
    documents: DocumentRule = "auto"
    text_key: str | None = None
    validation_fraction: float = VALIDATION_FRACTION
    append_eos: bool = False
    shard_tokens: int = SHARD_TOKENS
    validation_source: str | None = None
    duplicates: str | None = None
    """Duplicates that were removed, "exact" or "near"; None for none."""
    filters: str | None = None
    """The filters of documents, in words; None for none."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name; None in a field that shards may lack is left out, so that they remain up to date."""
        later = ("validation_source", "duplicates", "filters")
        return {name: value for name, value in vars(self).items() if name not in later or value is not None}


class GivenOptions(TypedDict, total=False):
    """The fields of `Options` that callers of `prepare`, `prepare_part` and `merge_parts` give; the rest is default."""

    documents: DocumentRule
    text_key: str | None
    validation_fraction: float
    append_eos: bool
    shard_tokens: int
    validation_source: str | None


@dataclass(frozen=True)
class Recipe:
    """All inputs that decide the bytes of a shard directory."""

    source_fingerprint: str
    options: Options

    @property
    def fingerprint(self) -> str:
        fields = {"source_fingerprint": self.source_fingerprint, **self.options.as_dict()}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def digest_of_tokenizer(tokenizer: Tokenizer) -> str:
    """SHA-256 over the files of a tokenizer."""
    return hashlib.sha256(b"".join(tokenizer.files.values())).hexdigest()


def fingerprint_of(sources: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in order. Raises InputError for a file that cannot be read.

    An object at an address is not read for it: the version that its server tells stands for the content.
    """
    return fingerprint_of_contents((path, content_of(path)) for path in sources)


def fingerprint_of_contents(contents: Iterable[tuple[Path, str]]) -> str:
    """The fingerprint of files whose `content_of` is known."""
    digest = hashlib.sha256()
    for path, content in contents:
        digest.update(f"{file_name(path)!r} {content}\n".encode())
    return digest.hexdigest()


def content_of(path: Path) -> str:
    """SHA-256 of a file, or the version of an object. Raises InputError for a file that cannot be read."""
    if (place := address(path)) is not None:
        return version_of(place)
    if path == STANDARD_INPUT or (path.exists() and not path.is_file()):
        name = "standard input" if path == STANDARD_INPUT else path
        raise UsageError(f"prepare reads its files twice, which {name} does not allow; save its text to a file")
    try:
        return storage.sha256_of(path)
    except OSError as error:
        raise unreadable(path, error) from None


def bytes_of(path: Path) -> int:
    """The size of a source. Raises InputError for a file that cannot be read."""
    place = address(path)
    try:
        return path.stat().st_size if place is None else size_of(place)
    except OSError as error:
        raise unreadable(path, error) from None


def uncompressed_bytes(sources: Iterable[Path]) -> int | None:
    """Total bytes of all sources; None if one is compressed, because its size says little about its text."""
    size = 0
    for path in sources:
        file_format = format_of_named(file_name(path))
        if file_format.compression != "none" or file_format.content in ("parquet", "zip"):
            return None
        size += bytes_of(path)
    return size


def limit_workers(num_workers: int | None, sources: Sequence[Path]) -> int:
    """The number of processes: `num_workers` (None: one a core), but at most one per PROCESS_BYTES of text."""
    if num_workers is None:
        num_workers = num_available_cores()
    plain = uncompressed_bytes(sources)
    return num_workers if plain is None else max(1, min(num_workers, plain // PROCESS_BYTES))


def check_options(tokenizer: Tokenizer, num_workers: int | None, shard_tokens: int) -> None:
    """Raises InputError for a tokenizer without BOS, UsageError for a number out of range."""
    if tokenizer.bos_id is None:
        raise InputError(f"{tokenizer.name} has no BOS token, which begins each document; use another tokenizer")
    if num_workers is not None and not 1 <= num_workers <= MOST_WORKERS:
        raise UsageError(f"num_workers is {num_workers}; it can be 1 to {MOST_WORKERS}", parameter="num_workers")
    if shard_tokens < 1:
        raise UsageError(f"shard_tokens is {shard_tokens}; at least 1 is needed", parameter="shard_tokens")
