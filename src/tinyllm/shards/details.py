"""The facts that the manifest of a shard directory records: its recipe, and the counts of each shard.

They are read entry by entry into columns, so that 100,000 shards need some megabytes.
"""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinyllm import storage
from tinyllm.errors import ArtifactError

SplitName = Literal["train", "validation"]


class Counts(BaseModel):
    """The size of one shard or one split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int = Field(ge=0)
    tokens: int = Field(ge=0)
    """Includes BOS, and EOS if the shards have it."""
    text_bytes: int = Field(ge=0)
    """UTF-8 bytes of the text, the denominator of bits per byte."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            documents=self.documents + other.documents,
            tokens=self.tokens + other.tokens,
            text_bytes=self.text_bytes + other.text_bytes,
        )


class ShardEntry(BaseModel):
    """One shard: `NAME.bin` and `NAME.idx`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    split: SplitName
    counts: Counts


class ShardFacts(BaseModel):
    """The details in the manifest of a shard directory, without its shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2]
    vocab_size: int = Field(gt=0)
    dtype: Literal["uint16", "uint32"]
    tokenizer_fingerprint: str
    source_fingerprint: str
    """SHA-256 over the names and contents of the source files."""
    recipe_fingerprint: str
    """SHA-256 over everything that decides the bytes: sources, tokenizer, options."""
    split_rule: Literal["hash", "position", "source"]
    validation_fraction: float
    append_eos: bool
    """Whether EOS ends each document; BOS always begins it."""


class ShardDetails(ShardFacts):
    """The details in the manifest of a shard directory."""

    shards: list[ShardEntry]

    def counts(self, split: SplitName) -> Counts:
        """The total over all shards of one split."""
        return sum((entry.counts for entry in self.shards if entry.split == split), NOTHING)


NOTHING = Counts(documents=0, tokens=0, text_bytes=0)


class ShardTable:
    """The entries of one split in columns, about 100 bytes a shard."""

    def __init__(self, split: SplitName) -> None:
        self.split: SplitName = split
        self.names: list[str] = []
        self._counts = array("q")

    def add(self, entry: ShardEntry) -> None:
        """Appends the entry of a shard of this split."""
        self.names.append(entry.name)
        self._counts.extend((entry.counts.documents, entry.counts.tokens, entry.counts.text_bytes))

    def __iter__(self) -> Iterator[ShardEntry]:
        for name, counts in zip(self.names, self._columns().tolist(), strict=True):
            yield ShardEntry(name=name, split=self.split, counts=_as_counts(counts))

    def token_counts(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each shard."""
        return self._columns()[:, 1].copy()

    def total(self) -> Counts:
        """The counts of all shards together."""
        return _as_counts(self._columns().sum(axis=0).tolist())

    def _columns(self) -> npt.NDArray[np.int64]:
        """Documents, tokens and text bytes of each shard: (shards, 3)."""
        return np.array(self._counts, dtype=np.int64).reshape(-1, 3)


def _as_counts(numbers: list[int]) -> Counts:
    documents, tokens, text_bytes = numbers
    return Counts(documents=documents, tokens=tokens, text_bytes=text_bytes)


def read_details(path: Path, check: storage.Check) -> tuple[ShardFacts, tuple[ShardTable, ShardTable]]:
    """The facts and the entries of a verified shard directory; entries are read one by one."""
    tables = ShardTable("train"), ShardTable("validation")

    def add(name: str, item: object) -> None:
        if name != "shards":
            raise ValueError(f"{name} is not a list of shards")
        entry = ShardEntry.model_validate(item)
        if Path(entry.name).name != entry.name:
            raise ValueError(f"the shard {entry.name!r} is not in this directory")
        tables[entry.split == "validation"].add(entry)

    manifest = storage.scan_manifest(path, "shards", check, on_item=add)
    try:
        return ShardFacts.model_validate(manifest.details), tables
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path / storage.MANIFEST_NAME} is damaged at {place}: {first['msg']}") from None
