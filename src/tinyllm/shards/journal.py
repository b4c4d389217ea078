"""The journal of `prepare` in its draft directory: one line for each finished shard, for resuming.

A line is appended after both files of the shard are on disk. A resumed `prepare` keeps a shard if its line belongs to
the same recipe and its files match the checksums; all other files are removed.
"""

import hashlib
import re
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinyllm import storage
from tinyllm.progress import Note
from tinyllm.shards.details import NOTHING, Counts, ShardEntry, SplitName

JOURNAL_NAME = "journal.jsonl"


class Journal:
    """The finished shards of a draft: `entries` in the order of their completion, and the `sha256` of their files."""

    def __init__(self, directory: Path, recipe_fingerprint: str, keep: bool, note: Note) -> None:
        """Reuses the valid shards in `directory` if `keep`, and reports their number to `note`."""
        self.entries: list[ShardEntry] = []
        self.sha256: dict[str, str] = {}
        self._directory = directory
        self._broken: set[SplitName] = set()
        lines = _read_lines(directory / JOURNAL_NAME, recipe_fingerprint) if keep else []
        kept = [line for line in lines if self._verify(line)]
        _remove_all_but(directory, {name for line in kept for name in line["sha256"]})
        self._file = storage.JsonLines(directory / JOURNAL_NAME)
        self._file.append({"recipe_fingerprint": recipe_fingerprint})
        for line in kept:
            self._file.append(line)
        if kept:
            note(f"resuming an interrupted prepare: {len(kept)} finished shard(s), {self.counts.tokens:,} tokens")

    def add(self, entry: ShardEntry, files: dict[str, bytes]) -> None:
        """Writes the files of a finished shard, then its line."""
        for name, content in files.items():
            storage.write_file(self._directory / name, content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self._file.append({"entry": entry.model_dump(), "sha256": digests})
        self.entries.append(entry)
        self.sha256.update(digests)

    @property
    def counts(self) -> Counts:
        """The total over all finished shards."""
        return sum((entry.counts for entry in self.entries), NOTHING)

    def num_documents(self, split: SplitName) -> int:
        """The number of documents in finished shards of one split, which are the split's first documents."""
        return sum(entry.counts.documents for entry in self.entries if entry.split == split)

    def close(self) -> None:
        """Closes the journal; its lines remain for resuming."""
        self._file.close()

    def _verify(self, line: dict[str, Any]) -> bool:
        """Adds a line's shard to `entries` if it and all earlier shards of its split are intact; returns whether."""
        try:
            entry = ShardEntry.model_validate(line["entry"])
            digests = dict(line["sha256"])
        except (KeyError, TypeError, ValueError, ValidationError):
            return False
        paths = {self._directory / name: digest for name, digest in digests.items()}
        if (
            entry.split in self._broken
            or Path(entry.name).name != entry.name
            or set(digests) != {f"{entry.name}.bin", f"{entry.name}.idx"}
            or not all(path.is_file() and storage.sha256_of(path) == digest for path, digest in paths.items())
        ):
            self._broken.add(entry.split)
            return False
        self.entries.append(entry)
        self.sha256.update(digests)
        return True


def shard_name(split: SplitName, entries: list[ShardEntry]) -> str:
    """The name of the next shard of a split: train-00000, train-00001, ..."""
    return f"{split}-{sum(entry.split == split for entry in entries):05d}"


def source_shard_name(source: str, entries: list[ShardEntry]) -> str:
    """The name of a source's shard: `data00` for `data/data00.json.gz`, with a number if the name is taken."""
    file_name = source.rpartition("/")[2].rpartition(":")[2]
    stem = Path(re.sub(r"\.(gz|zst|bz2|xz)$", "", file_name)).stem or "shard"
    taken = {entry.name for entry in entries}
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _read_lines(path: Path, recipe_fingerprint: str) -> list[dict[str, Any]]:
    """The lines after the header, if the header names the same recipe; else none."""
    records = storage.read_json_lines(path) if path.exists() else []
    return records[1:] if records and records[0] == {"recipe_fingerprint": recipe_fingerprint} else []


def _remove_all_but(directory: Path, names: set[str]) -> None:
    for path in directory.iterdir():
        if path.name not in names:
            storage.disk.remove_tree(path)
