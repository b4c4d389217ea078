"""What an interrupted `prepare` has finished: one line a shard, in the draft directory until it is complete.

A line is written once both files of the shard are on the disk. At the next start a shard is kept if its line belongs
to the same recipe and its files still have the checksums in it; everything else is removed.
"""

import hashlib
import re
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinyllm import storage
from tinyllm.shards.format import NOTHING, Counts, ShardEntry, SplitName

JOURNAL_NAME = "journal.jsonl"


class Journal:
    """The finished shards of a draft: `entries` in the order they were finished, and the `sha256` of their files."""

    def __init__(self, directory: Path, recipe_fingerprint: str, keep: bool, note: Callable[[str], None]) -> None:
        """Takes over what an earlier run left in `directory`, if `keep`, and says how much that is."""
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
            note(
                f"going on with {len(kept)} finished shard(s), {self.counts.tokens:,} tokens, of an interrupted prepare"
            )

    def add(self, entry: ShardEntry, files: dict[str, bytes]) -> None:
        """Writes the files of one finished shard, then its line."""
        for name, content in files.items():
            storage.write_file(self._directory / name, content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self._file.append({"entry": entry.model_dump(), "sha256": digests})
        self.entries.append(entry)
        self.sha256.update(digests)

    @property
    def counts(self) -> Counts:
        """Of all finished shards together."""
        return sum((entry.counts for entry in self.entries), NOTHING)

    def num_documents(self, split: SplitName) -> int:
        """Documents of one split that finished shards hold: its first ones."""
        return sum(entry.counts.documents for entry in self.entries if entry.split == split)

    def close(self) -> None:
        """Ends the log; what is in it stays for a next start."""
        self._file.close()

    def _verify(self, line: dict[str, Any]) -> bool:
        """Whether a line's shard and all before it in its split are whole on disk; if so, it is taken over."""
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
    """The name of the shard of one source: `data00` for `data/data00.json.gz`; a name that is taken gets a number."""
    file_name = source.rpartition("/")[2].rpartition(":")[2]
    stem = Path(re.sub(r"\.(gz|zst|bz2|xz)$", "", file_name)).stem or "shard"
    taken = {entry.name for entry in entries}
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _read_lines(path: Path, recipe_fingerprint: str) -> list[dict[str, Any]]:
    """The lines after the first, if that one names the same recipe."""
    records = storage.read_json_lines(path) if path.exists() else []
    return records[1:] if records and records[0] == {"recipe_fingerprint": recipe_fingerprint} else []


def _remove_all_but(directory: Path, names: set[str]) -> None:
    for path in directory.iterdir():
        if path.name not in names:
            storage.disk.remove_tree(path)
