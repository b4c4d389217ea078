"""`manifest.json`, the last file of a committed directory: its files with their sizes and SHA-256.

A directory is whole exactly if its manifest verifies, the manifest's own checksum included. Reading changes nothing.
A manifest is read entry by entry. So `scan_manifest` verifies a directory of any number of files in the same memory.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tinyllm.errors import ArtifactError, InputError
from tinyllm.storage.entries import STAMPS_NAME, Check, EntryChecker, FileEntry
from tinyllm.storage.json_stream import JsonReader

MANIFEST_NAME = "manifest.json"
MANIFEST_LIMIT_BYTES = 64 * 2**20
HASH_BYTES = 2**20
_SELF_CHECKSUM_BYTES = 256
"""More than the length of a manifest's own checksum, at its end."""
_SELF_CHECKSUM = re.compile(rb',\n  "manifest_sha256": "([0-9a-f]{64})"\n}\n\Z')


class Manifest(BaseModel):
    """The files of a directory, and the facts its writer recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    """The kind of the directory: model, shards, checkpoint or tokenizer."""
    tinyllm_version: str
    files: dict[str, FileEntry]
    details: dict[str, Any]
    """The kind's own facts, such as counts and fingerprints."""
    manifest_sha256: str | None = None
    """SHA-256 of the manifest's text before this line; None in a manifest written by hand."""

    def to_bytes(self) -> bytes:
        """JSON text that ends with its own SHA-256, so that a flipped bit anywhere in it shows."""
        text = (self.model_dump_json(indent=2, exclude={"manifest_sha256"}) + "\n").encode()
        ending = f',\n  "manifest_sha256": "{hashlib.sha256(text).hexdigest()}"\n}}\n'
        return text.removesuffix(b"\n}\n") + ending.encode()


def read_manifest(directory: Path, kind: str | None = None, check: Check = "sizes") -> Manifest:
    """The manifest of a committed directory, after checks of its form and its kind, and `check` of each file.

    Raises InputError if there is no such directory, ArtifactError if it is not whole.
    """
    files: dict[str, FileEntry] = {}
    manifest = scan_manifest(directory, kind, check, on_file=files.__setitem__)
    return manifest.model_copy(update={"files": files})


def read_manifest_text(directory: Path, kind: str | None = None) -> Manifest:
    """The manifest, without a look at the files."""
    return read_manifest(directory, kind, "none")


def verify(directory: Path, kind: str | None = None) -> Manifest:
    """The manifest, after a check of every file's size and SHA-256. Raises ArtifactError for the first that differs."""
    return read_manifest(directory, kind, "full")


def find_entry(directory: Path, name: str) -> FileEntry | None:
    """The entry of the file `name`, not compared with the file; None if the manifest does not list it."""
    found: list[FileEntry] = []
    scan_manifest(
        directory,
        on_file=lambda listed, entry: found.append(entry) if listed == name else None,
        on_item=leave_out,
    )
    return found[-1] if found else None


def leave_out(name: str, item: Any) -> None:
    """Does nothing: the `on_item` of a reader that needs no lists."""


def scan_manifest(
    directory: Path,
    kind: str | None = None,
    check: Check = "none",
    *,
    on_file: Callable[[str, FileEntry], None] | None = None,
    on_item: Callable[[str, Any], None] | None = None,
) -> Manifest:
    """The manifest without its files, read as by `read_manifest`; memory does not depend on their number.

    `on_file` receives each file. With `on_item`, the lists in `details` are left out too: it receives each item after
    the name of its list.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory" if directory.exists() else f"{directory} does not exist")
    path = directory / MANIFEST_NAME
    try:
        if path.stat().st_size > MANIFEST_LIMIT_BYTES:
            raise ArtifactError(f"{path} is larger than {MANIFEST_LIMIT_BYTES} bytes; it is damaged")
        with path.open("rb") as content:
            has_checksum = _check_own_checksum(content, str(path))
        with path.open(encoding="utf-8") as file:
            manifest = _scan(path, JsonReader(file), kind, EntryChecker(directory, check, on_file), on_item)
    except FileNotFoundError:
        raise ArtifactError(
            f"{directory} has no {MANIFEST_NAME}: it was not finished, or tinyllm did not write it"
        ) from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    if manifest.manifest_sha256 is not None and not has_checksum:
        raise _other_checksum(str(path))
    return manifest


def parse_manifest(content: bytes, where: str) -> Manifest:
    """The manifest whose text is `content`, after a check of its form. Raises ArtifactError, which names `where`."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the text"
        raise ArtifactError(f"{where} is damaged at {place}: {first['msg']}") from None
    if manifest.manifest_sha256 is not None and not _check_own_checksum(io.BytesIO(content), where):
        raise _other_checksum(where)
    return manifest


def _scan(
    path: Path,
    reader: JsonReader,
    kind: str | None,
    on_file: Callable[[str, FileEntry], None],
    on_item: Callable[[str, Any], None] | None,
) -> Manifest:
    """Reads a manifest in one pass. Raises ArtifactError naming the place of the first damage."""
    fields: dict[str, Any] = {}
    place: tuple[str | int, ...] = ()
    try:
        for key in reader.members():
            place = (key,)
            if key == "files":
                fields[key] = {}
                for name in reader.members():
                    place = (key, name)
                    on_file(name, FileEntry.model_validate(reader.value()))
            elif key == "details" and on_item is not None:
                fields[key] = _scan_details(reader, on_item)
            else:
                fields[key] = reader.value()
            if key == "kind" and kind is not None and isinstance(fields[key], str) and fields[key] != kind:
                raise ArtifactError(f"{path.parent} is of the kind {fields[key]}, not {kind}")
        reader.end()
        place = ()
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        named = ".".join(map(str, (*place, *first["loc"]))) or "the text"
        raise ArtifactError(f"{path} is damaged at {named}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged at {'.'.join(map(str, place)) or 'the text'}: {error}") from None


def _scan_details(reader: JsonReader, on_item: Callable[[str, Any], None]) -> dict[str, Any]:
    """The details without their lists, whose items `on_item` receives."""
    details: dict[str, Any] = {}
    for name in reader.members():
        if reader.begins("["):
            for _ in reader.items():
                on_item(name, reader.value())
        else:
            details[name] = reader.value()
    return details


def foreign_entries(directory: Path) -> Iterator[Path]:
    """The files of a committed directory that its manifest does not list: somebody else put them there.

    A directory without a readable manifest gives none: an unfinished draft belongs to its writer as a whole.
    """
    try:
        manifest = read_manifest_text(directory)
    except (ArtifactError, InputError):
        return
    for path in sorted(directory.iterdir()):
        if path.name not in manifest.files and path.name not in (MANIFEST_NAME, STAMPS_NAME):
            yield path


def _check_own_checksum(file: IO[bytes], where: str) -> bool:
    """Whether a manifest ends with its own checksum, as `Manifest.to_bytes` writes it.

    Raises ArtifactError if it ends with the checksum of another text.
    """
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _SELF_CHECKSUM_BYTES))
    match = _SELF_CHECKSUM.search(file.read())
    if match is None:
        return False
    digest, left = hashlib.sha256(), start + match.start()
    file.seek(0)
    while left:
        part = file.read(min(left, HASH_BYTES))
        if not part:
            raise ArtifactError(f"{where} is damaged: it became shorter while it was read")
        digest.update(part)
        left -= len(part)
    digest.update(b"\n}\n")
    if digest.hexdigest() != match[1].decode():
        raise _other_checksum(where)
    return True


def _other_checksum(where: str) -> ArtifactError:
    return ArtifactError(f"{where} is damaged: its text does not match its own checksum")
