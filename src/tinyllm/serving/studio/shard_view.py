"""Reads documents of shards by their number, a part at a time. Nothing is mapped: a file may shrink at any moment.

Only sizes are checked, not checksums: reading all of a large corpus would take long. An id that the tokenizer lacks is
shown as damaged. Shards without a manifest name no tokenizer and are not opened.
"""

import bisect
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from tinyllm import storage
from tinyllm.errors import ArtifactError
from tinyllm.serving.studio.library import STAMPED, stamp_of
from tinyllm.serving.studio.pieces import UNFINISHED, piece_fields
from tinyllm.shards.details import ShardDetails, ShardEntry
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.opening import open_tokenizer

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Ends = npt.NDArray[np.int64]
SHOWN_TOKENS = 2_000
END_BYTES = 8
KEPT = 8
"""Tokenizers and shards that stay open."""


class ShardFile:
    """One shard: the ids and the ends of its documents."""

    def __init__(self, folder: Path, entry: ShardEntry, dtype: str) -> None:
        self._ids, self._ends = folder / f"{entry.name}.bin", folder / f"{entry.name}.idx"
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.num_documents, self.num_tokens = entry.counts.documents, entry.counts.tokens

    def ends(self, start: int, stop: int) -> Ends:
        """The ends, in tokens, of the documents [start, stop), which exist. Raises ArtifactError for other numbers."""
        found = _read(self._ends, start * END_BYTES, (stop - start) * END_BYTES, np.dtype("<u8"))
        if len(found) != stop - start or (found > self.num_tokens).any() or (found[1:] < found[:-1]).any():
            raise ArtifactError(f"{self._ends} is damaged: its numbers should ascend up to {self.num_tokens}")
        return found.astype(np.int64)

    def bounds(self, start: int, stop: int) -> Ends:
        """The borders of the documents [start, stop), one more than documents."""
        if start:
            return self.ends(start - 1, stop)
        return np.concatenate([np.zeros(1, np.int64), self.ends(0, stop)])

    def ids(self, start: int, stop: int) -> Ids:
        """The ids [start, stop); fewer if the file became shorter."""
        width = self._dtype.itemsize
        return _read(self._ids, start * width, (stop - start) * width, self._dtype)


class SplitView:
    """The documents of one split, numbered over all its shards."""

    def __init__(self, files: list[ShardFile]) -> None:
        self.files = [file for file in files if file.num_documents]
        self._firsts = [0, *accumulate(file.num_documents for file in self.files)]

    @property
    def num_documents(self) -> int:
        """Documents of all shards."""
        return self._firsts[-1]

    @property
    def num_tokens(self) -> int:
        """Tokens of all shards."""
        return sum(file.num_tokens for file in self.files)

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, ShardFile, int, int]]:
        """The shards of the documents [start, stop): the number of the first one, and the range within the shard."""
        while start < min(stop, self.num_documents):
            index = bisect.bisect_right(self._firsts, start) - 1
            first, file = self._firsts[index], self.files[index]
            end = min(stop - first, file.num_documents)
            yield start, file, start - first, end
            start = first + end

    def documents(self, start: int, stop: int, most_tokens: int) -> Iterator[tuple[int, int, Ids]]:
        """Number, length and the first `most_tokens` ids of each of the documents [start, stop)."""
        for number, file, first, end in self.parts(start, stop):
            bounds = file.bounds(first, end).tolist()
            for index, (begin, after) in enumerate(pairwise(bounds)):
                yield number + index, after - begin, file.ids(begin, min(after, begin + most_tokens))


class ShardView:
    """A directory of shards with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        """Raises ArtifactError, FormatError or InputError for a directory that is damaged."""
        try:
            details = ShardDetails.model_validate(storage.read_manifest(folder, "shards").details)
        except ValidationError as error:
            raise ArtifactError(f"the manifest is damaged: {error.errors()[0]['msg']}") from None
        self.tokenizer = open_tokenizer(folder)
        if self.tokenizer.fingerprint != details.tokenizer_fingerprint:
            raise ArtifactError("the shards were made by another tokenizer than the one beside them")
        self.splits: dict[Literal["train", "validation"], SplitView] = {
            "train": _split(folder, details, "train"),
            "validation": _split(folder, details, "validation"),
        }

    def token_fields(self, ids: Ids) -> list[dict[str, Any]]:
        """The tokens as the page shows them."""
        size = self.tokenizer.vocab_size
        return [
            piece_fields(self.tokenizer, id) if id < size else {"id": id, "piece": UNFINISHED} for id in ids.tolist()
        ]


def open_shards(folder: Path) -> ShardView:
    """The shards in a folder, opened again if their manifest or tokenizer changed. Raises as `ShardView`."""
    return _open_shards(folder, *(stamp_of(folder / name) for name in STAMPED))


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer in a folder, opened again if it changed. Raises as `open_tokenizer`."""
    return _open_tokenizer(folder, *(stamp_of(folder / name) for name in STAMPED))


@lru_cache(maxsize=KEPT)
def _open_shards(folder: Path, *_stamps: object) -> ShardView:
    return ShardView(folder)


@lru_cache(maxsize=KEPT)
def _open_tokenizer(folder: Path, *_stamps: object) -> Tokenizer:
    return open_tokenizer(folder)


def _split(folder: Path, details: ShardDetails, split: str) -> SplitView:
    entries = [entry for entry in details.shards if entry.split == split]
    if any(Path(entry.name).name != entry.name for entry in entries):
        raise ArtifactError("the manifest names files of another directory")
    return SplitView([ShardFile(folder, entry, details.dtype) for entry in entries])


def _read(path: Path, start: int, num_bytes: int, dtype: Any) -> npt.NDArray[Any]:
    """The numbers in a part of a file."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        content = file.read(max(num_bytes, 0))
    return np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
