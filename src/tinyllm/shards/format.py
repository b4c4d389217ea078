"""Reads shards from disk: `NAME.bin` with token ids, `NAME.idx` with document ends, `manifest.json`.

A `.bin` has no header. It holds little-endian uint16, or uint32 for vocabularies over 65,536 ids, as in llama2.c. A
folder of bare `.bin` files is read with the split of llama2.c. The first of several files, in order of name, is for
validation; a single file gives its last tenth. `writer` writes shards, and `batches` cuts them into windows.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from tinyllm import storage
from tinyllm.corpus.sources import list_sources
from tinyllm.errors import ArtifactError, FormatError, InputError, MismatchError
from tinyllm.progress import SILENT, Note
from tinyllm.shards.arrays import ShardArrays, TokenFile
from tinyllm.shards.details import Counts, ShardEntry, ShardFacts, ShardTable, read_details
from tinyllm.shards.encoding import Tokens, dtype_for
from tinyllm.shards.overview import SHOWN_TOKENS, draw_overview
from tinyllm.shards.text_bytes import TextBytes
from tinyllm.storage.remote.fetch import fetch
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.opening import open_tokenizer

Verification = Literal["changed", "full"]
CHECK_TOKENS = 2**24
POSITION_PARTS = 10
"""A split by position reserves the last of this many equal parts for validation."""


@dataclass(frozen=True)
class ShardSet:
    """The memory-mapped token ids of a corpus, with their tokenizer."""

    path: Path
    tokenizer: Tokenizer
    train: ShardArrays
    """One array of ids per shard, opened when it is read."""
    validation: ShardArrays
    train_counts: Counts
    validation_counts: Counts
    details: ShardFacts | None
    """None for a folder of bare `.bin` files."""
    tables: tuple[ShardTable, ...] = ()
    """The entries of both splits; empty for a folder of bare `.bin` files."""

    @property
    def entries(self) -> list[ShardEntry]:
        """The entry of each shard, sorted by name."""
        return sorted((entry for table in self.tables for entry in table), key=lambda entry: entry.name)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        tokenizer: Tokenizer | None = None,
        verify: Verification = "changed",
        note: Note = SILENT.note,
    ) -> Self:
        """Opens a shard directory and verifies its files against the manifest; one at an address is fetched whole.

        `changed` hashes only files that were never verified or changed since (`storage.Check`). `full` reads
        every byte, for checksums and ids. A folder of bare `.bin` files requires `tokenizer`; in other directories it
        is only compared. Raises InputError or FormatError for other files, ArtifactError for a damaged directory,
        MismatchError for another tokenizer.
        """
        path = fetch(path, note=note)
        if not path.exists():
            raise InputError(
                f"{path} does not exist", hint=f"make shards with: `prepare(FILES, tokenizer=DIR, output={path})`"
            )
        if path.is_file():
            raise _not_prepared(path)
        has_manifest = (path / storage.MANIFEST_NAME).exists()
        has_ids = has_manifest or any(path.glob("*.bin"))
        if not (has_manifest or has_ids) and _holds_text(path):
            raise _not_prepared(path)
        if has_manifest or not has_ids:
            return cls._open_committed(path, tokenizer, verify)
        return cls._open_bare(path, tokenizer)

    @classmethod
    def _open_committed(cls, path: Path, tokenizer: Tokenizer | None, verify: Verification) -> Self:
        facts, tables = read_details(path, verify)
        stored = open_tokenizer(path)
        for found in (stored, tokenizer or stored):
            if found.fingerprint != facts.tokenizer_fingerprint:
                raise MismatchError(f"{path} was made by another tokenizer than {found.name}; prepare the text again")
        splits = [_open_split(path, table, facts.dtype) for table in tables]
        if verify == "full":
            for table, arrays in zip(tables, splits, strict=True):
                for name, ids in zip(table.names, arrays, strict=True):
                    check_ids(ids, stored, path / f"{name}.bin")
        train, validation = splits
        return cls(path, stored, train, validation, tables[0].total(), tables[1].total(), facts, tables)

    @classmethod
    def _open_bare(cls, path: Path, tokenizer: Tokenizer | None) -> Self:
        if tokenizer is None:
            raise InputError(f"{path} has .bin files without a manifest; say which tokenizer made them")
        dtype = dtype_for(tokenizer.vocab_size)
        files = sorted(path.glob("*.bin"))
        # These files have no checksum, and an id outside the vocabulary would stop training midway.
        for file in files:
            check_ids(read_tokens(file, dtype), tokenizer, file)
        if len(files) == 1:
            length = _count_ids(files[0], dtype)
            cut = length - length // POSITION_PARTS
            train = ShardArrays(np.array([cut]), lambda _: TokenFile(files[0], dtype, cut))
            validation = ShardArrays(
                np.array([length - cut]), lambda _: TokenFile(files[0], dtype, length - cut, first=cut)
            )
        else:
            validation, train = _as_split(files[:1], dtype), _as_split(files[1:], dtype)
        train_counts, validation_counts = (count_tokens(split, tokenizer) for split in (train, validation))
        return cls(path, tokenizer, train, validation, train_counts, validation_counts, None)

    def _repr_html_(self) -> str:
        splits = {"train": self.train_counts, "validation": self.validation_counts}
        rows = [
            (name, f"{counts.documents:,} documents, {counts.tokens:,} tokens, {counts.text_bytes:,} bytes of text")
            for name, counts in splits.items()
        ]
        head = self.train[0][:CHECK_TOKENS] if self.train else np.zeros(0, np.uint16)
        # The last document may be cut.
        starts = find_document_starts(head, self.tokenizer.bos_id)
        first = head[: min(SHOWN_TOKENS, starts[1] if len(starts) > 1 else len(head))]
        facts = [("shards", str(self.path)), ("vocabulary", f"{self.tokenizer.vocab_size:,} tokens"), *rows]
        return draw_overview(facts, np.diff(starts), first, self.tokenizer)


def _open_split(path: Path, table: ShardTable, dtype: Literal["uint16", "uint32"]) -> ShardArrays:
    """The arrays of a split. Raises ArtifactError for a file that has another number of tokens than its entry."""
    lengths = table.token_counts()
    for name, num_tokens in zip(table.names, lengths.tolist(), strict=True):
        file = path / f"{name}.bin"
        found = _count_ids(file, dtype)
        if found != num_tokens:
            raise ArtifactError(f"{file} has {found} tokens, not {num_tokens}")
    return ShardArrays(lengths, lambda number: TokenFile(path / f"{table.names[number]}.bin", dtype))


def _as_split(files: list[Path], dtype: Literal["uint16", "uint32"]) -> ShardArrays:
    """The arrays of whole files. Raises FormatError if the size of one is not a multiple of the id size."""
    lengths = np.array([_count_ids(file, dtype) for file in files], dtype=np.int64)
    return ShardArrays(lengths, lambda number: TokenFile(files[number], dtype))


def _holds_text(folder: Path) -> bool:
    """Whether a folder without shards holds text for `prepare`; runs and models hold none."""
    if any((folder / name).exists() for name in ("config.toml", "config.json")):
        return False
    try:
        return bool(list_sources([folder]))
    except InputError:
        return False


def _not_prepared(path: Path) -> InputError:
    """The error for text in place of shards, with the command that makes shards."""
    resolved = path.resolve()
    name = (resolved.name.partition(".")[0] if path.is_file() else resolved.name) or "text"
    text, shards = shlex.quote(str(path)), shlex.quote(f"{name}-shards")
    return InputError(
        f"{path} is text, not shards",
        hint=f"run prepare first: `prepare({text}, tokenizer=tokenizer, output={shards})` "
        f"(its tokenizer: `train_tokenizer({text}, output=tokenizer)`), and then name {shards} instead",
    )


def find_document_starts(array: Tokens, bos_id: int | None) -> npt.NDArray[np.int64]:
    """The starts of the documents in an array of ids: each BOS, and index 0."""
    starts = np.zeros(0, np.int64) if bos_id is None else np.flatnonzero(array == bos_id)
    return starts if len(starts) and starts[0] == 0 else np.concatenate([[0], starts])


def read_tokens(path: Path, dtype: Literal["uint16", "uint32"]) -> Tokens:
    """A `.bin` file as a read-only memory map. Raises FormatError if its size is not a multiple of the id size."""
    return TokenFile(path, dtype, _count_ids(path, dtype)).ids


def _count_ids(path: Path, dtype: Literal["uint16", "uint32"]) -> int:
    size, width = path.stat().st_size, np.dtype(dtype).itemsize
    if size % width:
        raise FormatError(f"{path} has {size} bytes, which is not a whole number of {dtype} ids; it is damaged")
    return size // width


def read_document_ends(path: Path, num_tokens: int) -> npt.NDArray[np.uint64]:
    """The ends of a shard's documents in tokens, from an `.idx` file. Raises FormatError if they are not possible."""
    ends = np.frombuffer(path.read_bytes(), dtype="<u8") if path.stat().st_size % 8 == 0 else np.zeros(0, "<u8")
    if not len(ends) or ends[-1] != num_tokens or np.any(ends[1:] <= ends[:-1]):
        raise FormatError(f"{path} is damaged: it must hold ascending uint64 numbers up to {num_tokens}")
    return ends


def check_ids(tokens: Tokens, tokenizer: Tokenizer, path: Path) -> None:
    """Raises FormatError naming the first id outside the vocabulary."""
    for start in range(0, len(tokens), CHECK_TOKENS):
        too_large = tokens[start : start + CHECK_TOKENS] >= tokenizer.vocab_size
        if too_large.any():
            place = start + int(too_large.argmax())
            raise FormatError(
                f"{path}: token {place} has the id {tokens[place]}, out of range for the {tokenizer.vocab_size} "
                f"tokens of {tokenizer.name}; was it made by another tokenizer, or is it damaged?"
            )


def count_tokens(arrays: Sequence[Tokens], tokenizer: Tokenizer) -> Counts:
    """Counts from the ids alone: a BOS token is a document, and each piece has a number of text bytes."""
    counter = TextBytes(tokenizer)
    documents = text_bytes = 0
    for array in arrays:
        for start in range(0, len(array), CHECK_TOKENS):
            part = array[start : start + CHECK_TOKENS]
            before = np.empty(len(part), np.int64)
            before[1:], before[0] = part[:-1], array[start - 1] if start else -1
            documents += int(np.count_nonzero(part == tokenizer.bos_id))
            text_bytes += counter.count(part, before)
    return Counts(documents=documents, tokens=sum(map(len, arrays)), text_bytes=text_bytes)
