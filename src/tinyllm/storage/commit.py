"""Commits outputs: an output takes its name in one step, when it is whole and durable.

    directory  files, fsync each, manifest.json, fsync, fsync the directory, rename, fsync the parent
    file       content, fsync, rename, fsync the parent

The manifest has size and SHA-256 of each file. So a directory is whole exactly if its manifest verifies, whenever the
power failed. Both are made in a draft (`drafts`). An output that is a symbolic link is written through: the link stays,
and its target is replaced.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tinyllm.errors import ArtifactError
from tinyllm.storage import disk
from tinyllm.storage.checks import check_replaceable, check_room, follow_link, refused
from tinyllm.storage.drafts import Draft, free_name, open_draft, return_foreign
from tinyllm.storage.entries import STAMPS_NAME, TICK_NS, FileEntry, sha256_of, stamps
from tinyllm.storage.manifest import MANIFEST_NAME, Manifest, foreign_entries, scan_manifest
from tinyllm.version import __version__

FILE = "file"


@dataclass
class DirectoryDraft:
    """A directory in preparation: put files into `path` and facts into `details`."""

    path: Path
    details: dict[str, Any] = field(default_factory=dict)
    temporary_names: set[str] = field(default_factory=set)
    """Working files; they are removed before the manifest is written."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Expected SHA-256 where known; other files are hashed from disk."""
    keep: bool = True
    """Whether a resumable draft stays after an error."""

    def write(self, name: str, content: str | bytes | Iterator[bytes] | Callable[[Path], None]) -> None:
        """Writes one file of the directory; a function is given the path and writes it itself.

        An iterator gives the parts of the file one after the other.
        """
        path = self.path / name
        if callable(content):
            disk.write_by(content, path)
        elif isinstance(content, Iterator):
            disk.write_pieces(path, content)
        else:
            disk.write_bytes(path, content.encode() if isinstance(content, str) else content)


@contextmanager
def commit_directory(
    path: Path,
    kind: str,
    *,
    resumable: bool = False,
    needed_bytes: int | None = None,
    with_stamps: bool = False,
    check: Callable[[Path], None] | None = None,
) -> Iterator[DirectoryDraft]:
    """Yields a draft to fill; at the end of the block it replaces `path` in one step.

    `with_stamps` notes sizes, inodes and times, so that the check `changed` need not read the files again. `check` is
    called with the finished draft and refuses it by raising. After an error `path` is unchanged, and the draft is
    removed. A `resumable` draft stays, and the next draft of the same path starts from its files. Foreign files in the
    replaced directory are moved into the new one.

    Raises ArtifactError if the disk refuses, if another process writes `path`, and if `path` is anything but a
    directory that tinyllm committed as this kind. `needed_bytes`, if known, are checked before the block.
    """
    path = follow_link(path)
    check_replaceable(path, kind)
    if needed_bytes is not None:
        check_room(path, needed_bytes)
    size = 0
    try:
        with open_draft(path, kind, resumable=resumable) as draft:
            if not draft.new.is_dir():
                disk.make_directory(draft.new)
            content = DirectoryDraft(draft.new)
            try:
                yield content
                _seal(content, kind, with_stamps)
                if check is not None:
                    check(draft.new)
                _publish_directory(draft)
            except BaseException:
                size, draft.keep = _size_bytes(draft.new), resumable and content.keep
                raise
    except OSError as error:
        raise refused(path, size, error, needed_bytes) from error


@contextmanager
def commit_file(path: Path, needed_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """Yields a binary file to write; at the end of the block it replaces `path`, after an error `path` is unchanged."""
    path = follow_link(path)
    size = 0
    try:
        with open_draft(path, FILE) as draft:
            try:
                with draft.new.open("xb") as file:
                    yield file
                    file.flush()
                    disk.after_operation("write", draft.new)
                    os.fsync(file.fileno())
                    disk.after_operation("sync", draft.new)
                publish_file(draft, draft.new)
            except BaseException:
                size = draft.new.stat().st_size if draft.new.exists() else 0
                raise
    except OSError as error:
        raise refused(path, size, error, needed_bytes) from error


def publish_file(draft: Draft, content: Path) -> None:
    """Renames a durable file of the draft to the target, in one step."""
    disk.rename(content, draft.target)
    disk.sync_directory(draft.target.parent)


@contextmanager
def append_file(draft: Draft, keep_bytes: int) -> Iterator[IO[bytes]]:
    """Yields a draft's file, cut to its first `keep_bytes` bytes, to append to; written bytes stay after an error."""
    path = draft.new
    try:
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(keep_bytes)
            file.seek(keep_bytes)
            yield file
        disk.after_operation("write", path)
    except OSError as error:
        raise refused(draft.target, path.stat().st_size if path.exists() else 0, error) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a small file in one step: after a crash the old or the new content is there."""
    data = content.encode() if isinstance(content, str) else content
    with commit_file(path, needed_bytes=len(data)) as file:
        file.write(data)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as readable JSON, in one step."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def set_aside(path: Path) -> Path:
    """Renames a damaged directory to `NAME.damaged`, or `NAME.damaged-2` ... if that exists; returns the new path."""
    aside = free_name(path.with_name(f"{path.name}.damaged"))
    disk.rename(path, aside)
    disk.sync_directory(path.parent)
    return aside


def remove_directory(path: Path, kind: str) -> bool:
    """Removes a committed directory of a kind; False, and no change, if it holds foreign files.

    The directory is renamed first, in one step, so that no part of it is ever taken for the whole.
    Raises ArtifactError if `path` is not such a directory, or the disk refuses.
    """
    scan_manifest(path, kind)
    if any(foreign_entries(path)):
        return False
    try:
        with open_draft(path, kind) as draft:
            disk.rename(path, draft.new)
    except OSError as error:
        raise refused(path, 0, error) from error
    return True


def _seal(draft: DirectoryDraft, kind: str, with_stamps: bool) -> None:
    """Makes the draft's files durable, then lists them in a manifest, which is made durable as well."""
    entries = {}
    for path in sorted(draft.path.iterdir()):
        if path.name in (MANIFEST_NAME, STAMPS_NAME) or path.name in draft.temporary_names:
            continue
        disk.sync(path)
        entries[path.name] = FileEntry(bytes=path.stat().st_size, sha256=draft.sha256.get(path.name) or sha256_of(path))
    for name in sorted(draft.temporary_names):
        disk.remove_file(draft.path / name)
    manifest = Manifest(kind=kind, tinyllm_version=__version__, files=entries, details=draft.details)
    disk.write_bytes(draft.path / MANIFEST_NAME, manifest.to_bytes())
    disk.sync(draft.path / MANIFEST_NAME)
    if with_stamps:
        write_stamps(draft.path, manifest)
    disk.sync_directory(draft.path)


def write_stamps(directory: Path, manifest: Manifest) -> None:
    """Notes in `directory`, for the check `changed`, that its files match the manifest; waits for the disk's clock."""
    time.sleep(TICK_NS / 1e9)
    disk.write_bytes(directory / STAMPS_NAME, json.dumps(stamps(directory, manifest.files)).encode())
    disk.sync(directory / STAMPS_NAME)


def _publish_directory(draft: Draft) -> None:
    """Renames the finished content to the target. An existing directory is exchanged in one step if the system can."""
    target = draft.target
    check_replaceable(target, draft.kind)  # Another program may have used the name since the start.
    if not target.exists():
        disk.rename(draft.new, target)
        disk.sync_directory(target.parent)
        return
    for path in foreign_entries(target):
        if os.path.lexists(draft.new / path.name):
            raise ArtifactError(f"{path} is in the way, a file of somebody else; move it, or choose another place")
    if not any(target.iterdir()):
        disk.rename(draft.new, target)  # An empty directory is replaced by a plain rename.
        disk.sync_directory(target.parent)
        return
    if disk.exchange(draft.new, target):
        disk.sync_directory(target.parent)
        return_foreign(draft.new, target)
        return
    # Without an exchange the name is free for a moment. A crash there leaves `old`, which the next writer brings back.
    disk.rename(target, draft.old)
    disk.rename(draft.new, target)
    disk.sync_directory(target.parent)
    return_foreign(draft.old, target)


def _size_bytes(directory: Path) -> int:
    size = 0
    for path in directory.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
