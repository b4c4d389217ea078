"""`manifest.json`, the last file of a committed directory: its files with their sizes and SHA-256.

A directory is whole exactly if its manifest verifies, the manifest's own checksum included. Reading changes nothing.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinyllm.errors import ArtifactError, InputError

MANIFEST_NAME = "manifest.json"
STAMPS_NAME = ".verified.json"
MANIFEST_LIMIT_BYTES = 64 * 2**20
TICK_NS = 50_000_000
"""File systems count time in ticks: a file that changed this recently may change again with the same time."""
_SELF_CHECKSUM = re.compile(rb',\n  "manifest_sha256": "([0-9a-f]{64})"\n}\n\Z')


class FileEntry(BaseModel):
    """Size and checksum of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


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


def read_manifest(directory: Path, kind: str | None = None) -> Manifest:
    """The manifest of a committed directory, after checks of its form, its kind and each file's size.

    Raises InputError if there is no such directory, ArtifactError if it is not whole.
    """
    manifest = read_manifest_text(directory, kind)
    for name, entry in manifest.files.items():
        _check_size(directory, name, entry)
    return manifest


def read_manifest_text(directory: Path, kind: str | None = None) -> Manifest:
    """The manifest, checked as by `read_manifest`, but without the sizes of the files."""
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory" if directory.exists() else f"{directory} does not exist")
    path = directory / MANIFEST_NAME
    try:
        if path.stat().st_size > MANIFEST_LIMIT_BYTES:
            raise ArtifactError(f"{path} is larger than {MANIFEST_LIMIT_BYTES} bytes; it is damaged")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            f"{directory} has no {MANIFEST_NAME}: it was not finished, or tinyllm did not write it"
        ) from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    manifest = parse_manifest(content, str(path))
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{directory} is of the kind {manifest.kind}, not {kind}")
    return manifest


def parse_manifest(content: bytes, where: str) -> Manifest:
    """The manifest whose text is `content`, after a check of its form. Raises ArtifactError, which names `where`."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the text"
        raise ArtifactError(f"{where} is damaged at {place}: {first['msg']}") from None
    if manifest.manifest_sha256 is not None and not _matches_own_checksum(content):
        raise ArtifactError(f"{where} is damaged: its text does not match its own checksum")
    return manifest


def verify(directory: Path, kind: str | None = None) -> Manifest:
    """The manifest, after a check of every file's size and SHA-256. Raises ArtifactError for the first that differs."""
    manifest = read_manifest(directory, kind)
    for name, entry in manifest.files.items():
        _check_content(directory / name, entry)
    return manifest


def verify_changed(directory: Path, kind: str | None = None) -> Manifest:
    """The manifest, checked as by `verify` except for files that are untouched since their writer noted them.

    An untouched file has the size, inode and times of DIRECTORY/.verified.json (`stamps`). A copy of a directory has
    other inodes and times, so all its files are read. Only `verify` finds a file that a failing disk changed silently.
    """
    manifest = read_manifest(directory, kind)
    known = _read_stamps(directory)
    for name, entry in manifest.files.items():
        if known.get(name) != _stamp(directory / name, entry):
            _check_content(directory / name, entry)
    return manifest


def stamps(directory: Path, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Size, inode and times of the files, for `verify_changed`; a writer calls this right after writing them."""
    now = time.time_ns()
    found = {name: _stamp(directory / name, entry) for name, entry in manifest.files.items()}
    return {name: stamp for name, stamp in found.items() if stamp["changed_ns"] < now - TICK_NS}


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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matches_own_checksum(content: bytes) -> bool:
    """Whether a manifest's text ends with its own checksum, as `Manifest.to_bytes` writes it."""
    match = _SELF_CHECKSUM.search(content)
    if match is None:
        return False
    return hashlib.sha256(content[: match.start()] + b"\n}\n").hexdigest() == match[1].decode()


def _check_size(directory: Path, name: str, entry: FileEntry) -> None:
    path = directory / name
    if Path(name).name != name:
        raise ArtifactError(
            f"{directory / MANIFEST_NAME} names {name!r}; a manifest names files of its own directory only"
        )
    if not path.is_file():
        raise ArtifactError(f"{path} is missing, though the manifest of {directory} lists it")
    if path.stat().st_size != entry.bytes:
        raise ArtifactError(f"{path} is damaged: it has {path.stat().st_size} bytes, the manifest says {entry.bytes}")


def _check_content(path: Path, entry: FileEntry) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    if found != entry.sha256:
        raise ArtifactError(f"{path} is damaged: its SHA-256 is {found[:12]}…, the manifest says {entry.sha256[:12]}…")


def _stamp(path: Path, entry: FileEntry) -> dict[str, Any]:
    """Checksum, size, inode and times; writing to the file changes at least one of them."""
    found = path.stat()
    return {
        "sha256": entry.sha256,
        "bytes": found.st_size,
        "inode": found.st_ino,
        "modified_ns": found.st_mtime_ns,
        "changed_ns": found.st_ctime_ns,
    }


def _read_stamps(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / STAMPS_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # without stamps every file is read
    return found if isinstance(found, dict) else {}
