"""One file of a committed directory: its entry in the manifest, its stamp, and the comparison with the disk."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinyllm.errors import ArtifactError
from tinyllm.storage.json_stream import JsonReader

STAMPS_NAME = ".verified.json"
TICK_NS = 50_000_000
"""File systems count time in ticks: a file that changed this recently may change again with the same time."""
Check = Literal["none", "sizes", "changed", "full"]
"""The comparison of files with the manifest: none, by size, by SHA-256 if they changed since, by SHA-256.

A file is unchanged if it has the size, inode and times of DIRECTORY/.verified.json (`stamps`). A copy of a directory
has other inodes and times, so all its files are read. Only `full` finds a file that a failing disk changed silently.
"""


class FileEntry(BaseModel):
    """Size and checksum of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class EntryChecker:
    """Compares each file of a directory with its entry, and passes the entry on."""

    def __init__(self, directory: Path, check: Check, on_file: Callable[[str, FileEntry], None] | None) -> None:
        self._directory, self._check, self._on_file = directory, check, on_file
        # Stamps are in the order of the files; a file without one, or out of order, is read.
        self._stamps = _read_stamps(directory) if check == "changed" else iter(())
        self._stamp = next(self._stamps, None)

    def __call__(self, name: str, entry: FileEntry) -> None:
        if self._check != "none":
            found = _check_size(self._directory, name, entry)
            if self._check == "full" or (self._check == "changed" and not self._is_noted(name, entry, found)):
                _check_content(self._directory / name, entry)
        if self._on_file is not None:
            self._on_file(name, entry)

    def _is_noted(self, name: str, entry: FileEntry, found: os.stat_result) -> bool:
        """Whether the file has the stamp that its writer noted."""
        if self._stamp is None or self._stamp[0] != name:
            return False
        noted, self._stamp = self._stamp[1], next(self._stamps, None)
        return bool(noted == _stamp_of(found, entry))


def stamps(directory: Path, files: Mapping[str, FileEntry]) -> dict[str, dict[str, Any]]:
    """Size, inode and times of the files, for the check `changed`; a writer calls this right after writing them."""
    now = time.time_ns()
    found = {name: _stamp_of((directory / name).stat(), entry) for name, entry in files.items()}
    return {name: stamp for name, stamp in found.items() if stamp["changed_ns"] < now - TICK_NS}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_size(directory: Path, name: str, entry: FileEntry) -> os.stat_result:
    """Size, inode and times of the file. Raises ArtifactError if it is missing, or has another size."""
    if Path(name).name != name:
        raise ArtifactError(
            f"the manifest of {directory} names {name!r}; a manifest names files of its own directory only"
        )
    path = directory / name
    try:
        found = path.stat()
    except (OSError, ValueError):
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise ArtifactError(f"{path} is missing, though the manifest of {directory} lists it")
    if found.st_size != entry.bytes:
        raise ArtifactError(f"{path} is damaged: it has {found.st_size} bytes, the manifest says {entry.bytes}")
    return found


def _check_content(path: Path, entry: FileEntry) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    if found != entry.sha256:
        raise ArtifactError(f"{path} is damaged: its SHA-256 is {found[:12]}…, the manifest says {entry.sha256[:12]}…")


def _stamp_of(found: os.stat_result, entry: FileEntry) -> dict[str, Any]:
    """Checksum, size, inode and times; writing to the file changes at least one of them."""
    return {
        "sha256": entry.sha256,
        "bytes": found.st_size,
        "inode": found.st_ino,
        "modified_ns": found.st_mtime_ns,
        "changed_ns": found.st_ctime_ns,
    }


def _read_stamps(directory: Path) -> Iterator[tuple[str, Any]]:
    """The stamps in their order, up to the first damage; a file without a stamp is read."""
    try:
        with (directory / STAMPS_NAME).open(encoding="utf-8") as file:
            reader = JsonReader(file)
            for name in reader.members():
                yield name, reader.value()
    except (OSError, ValueError, RecursionError):
        return
