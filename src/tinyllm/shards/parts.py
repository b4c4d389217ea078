"""The part of a corpus that one task encoded: a committed directory beside the shards it is for.

    OUTPUT.parts/part-00002-of-00004/
      batches.bin    for each batch: lengths, text bytes and split keys of its documents (int64, int64, float64), ids
      index.jsonl    for each batch: its place in the corpus, its counts, its sources and its SHA-256
      manifest.json  what the part was made from, and the checksum of the index

`part_writer` makes parts and `merge` joins them. A batch is checked when it is read, so that it is read once.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from tinyllm import storage
from tinyllm.addresses import address, join
from tinyllm.corpus.split import split_key
from tinyllm.errors import ArtifactError, UsageError
from tinyllm.shards.details import NOTHING, Counts
from tinyllm.shards.encoding import EncodedTexts
from tinyllm.shards.pieces import PieceBatch
from tinyllm.storage.remote.listing import objects_below

KIND = "part"
BATCHES_NAME, INDEX_NAME = "batches.bin", "index.jsonl"
DOCUMENT_BYTES = 24
"""Bytes of a document in a batch, its ids aside."""
_NAME = re.compile(r"part-(\d{5})-of-(\d{5})")


class PartDetails(BaseModel):
    """The details in the manifest of a part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1]
    task: int
    num_tasks: int
    dtype: Literal["uint16", "uint32"]
    options: dict[str, Any]
    """The options that decide the bytes of the shards, with the digest of the tokenizer."""
    listing_fingerprint: str
    """SHA-256 over the names and sizes of all files of the corpus."""
    contents: dict[int, str]
    """Place in the list of files -> SHA-256 or version, for each file that the task read."""
    counts: Counts
    search: str = ""
    """The search for duplicates that chose the documents; empty if all documents are there."""


@dataclass(frozen=True)
class IndexEntry:
    """A line of the index: one batch."""

    piece: int
    batch: int
    documents: int
    tokens: int
    sources: list[tuple[str, int]]
    """Runs of documents of one source: its name and their number."""
    sha256: str


@dataclass(frozen=True)
class PartBatch:
    """A batch as `merge` reads it."""

    texts: EncodedTexts
    sources: list[str]
    """The source of each document."""
    keys: npt.NDArray[np.float64]
    """The split key of each document."""

    def split(self) -> Iterator["PartBatch"]:
        """Each document as a batch of its own."""
        texts = self.texts
        for place, ids in enumerate(texts.split()):
            only = slice(place, place + 1)
            encoded = EncodedTexts(ids, texts.lengths[only], texts.text_bytes[only])
            yield PartBatch(encoded, self.sources[only], self.keys[only])


def parts_folder(output: Path) -> Path:
    """The folder of the parts of a shard directory. Raises UsageError for an output without a name, such as "."."""
    if output.name in ("", ".."):
        raise UsageError(
            f"output is {output}, which has no name of its own; its parts are beside it", parameter="output"
        )
    return output.with_name(f"{output.name}.parts")


def part_path(folder: Path, task: int, num_tasks: int) -> Path:
    """The directory of one part."""
    return folder / f"part-{task:05d}-of-{num_tasks:05d}"


def numbers_of_tasks(folder: Path) -> list[int]:
    """The numbers of tasks of the parts in a folder."""
    place = address(folder)
    if place is None:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    else:
        names = [found.place.removeprefix(join(place, "")).lstrip("/").split("/")[0] for found in objects_below(place)]
    matches = map(_NAME.fullmatch, names)
    return sorted({int(match[2]) for match in matches if match is not None})


class PartContent:
    """The records of a part in the making; `index` and `counts` grow with them."""

    def __init__(self) -> None:
        self.index: list[str] = []
        self.counts = NOTHING

    def records(self, encoded: Iterable[tuple[PieceBatch, EncodedTexts]]) -> Iterator[bytes]:
        """The bytes of each batch for `batches.bin`."""
        for batch, texts in encoded:
            keys = np.array([split_key(document.text) for document in batch.documents])
            ids = texts.ids.astype(texts.ids.dtype.newbyteorder("<"))
            columns = texts.lengths.astype("<i8"), texts.text_bytes.astype("<i8"), keys.astype("<f8"), ids
            record = b"".join(column.tobytes() for column in columns)
            runs = groupby(document.source for document in batch.documents)
            entry = IndexEntry(
                batch.piece,
                batch.number,
                len(texts.lengths),
                len(texts.ids),
                [(source, len(list(run))) for source, run in runs],
                hashlib.sha256(record).hexdigest(),
            )
            self.index.append(json.dumps(vars(entry), ensure_ascii=False) + "\n")
            self.counts += Counts(
                documents=entry.documents, tokens=entry.tokens, text_bytes=int(texts.text_bytes.sum())
            )
            yield record


class Part:
    """A part on the disk. Raises ArtifactError or InputError unless its manifest, index and sizes are whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        manifest = storage.read_manifest(path, KIND, "sizes")
        try:
            self.details = PartDetails.model_validate(manifest.details)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ArtifactError(f"{path / storage.MANIFEST_NAME} is damaged at {place}: {first['msg']}") from None
        self._index_sha256 = manifest.files[INDEX_NAME].sha256
        self._dtype = np.dtype(self.details.dtype).newbyteorder("<")

    def read_index(self) -> list[tuple[IndexEntry, int]]:
        """Each batch with its offset in `batches.bin`. Raises ArtifactError if the index is damaged."""
        path = self.path / INDEX_NAME
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self._index_sha256:
            raise ArtifactError(f"{path} is damaged: its SHA-256 is not that of the manifest")
        offset, found = 0, []
        for line in content.splitlines():
            entry = IndexEntry(**json.loads(line))
            found.append((entry, offset))
            offset += self._num_bytes(entry)
        return found

    def read(self, entry: IndexEntry, offset: int) -> PartBatch:
        """One batch. Raises ArtifactError if it is damaged."""
        path = self.path / BATCHES_NAME
        with path.open("rb") as file:
            file.seek(offset)
            record = file.read(self._num_bytes(entry))
        if hashlib.sha256(record).hexdigest() != entry.sha256:
            raise ArtifactError(
                f"{path} is damaged in the {len(record):,} bytes from {offset:,}: their SHA-256 differs"
            )
        columns = np.frombuffer(record, "<i8", 2 * entry.documents).reshape(2, -1)
        keys = np.frombuffer(record, "<f8", entry.documents, 16 * entry.documents)
        ids = np.frombuffer(record, self._dtype, entry.tokens, DOCUMENT_BYTES * entry.documents)
        sources = [source for source, count in entry.sources for _ in range(count)]
        return PartBatch(EncodedTexts(ids, columns[0], columns[1]), sources, keys)

    def _num_bytes(self, entry: IndexEntry) -> int:
        return DOCUMENT_BYTES * entry.documents + self._dtype.itemsize * entry.tokens


def name_differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first option that differs, for a message: "documents=line instead of documents=auto"."""
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            if name == "tokenizer_sha256":
                return "another tokenizer"
            return f"{name}={found.get(name)} instead of {name}={expected.get(name)}"
    return ""


def tasks_in_words(tasks: Sequence[int]) -> str:
    """The numbers of tasks for a message: "0, 1, 5"; of many, the first ten."""
    return ", ".join(map(str, tasks[:10])) + (", …" if len(tasks) > 10 else "")
