"""The one module that writes files: what it has committed is whole, what is not whole was never committed.

A directory is written as `NAME.tmp`: files, fsync each, then `manifest.json` with the size and SHA-256 of each, fsync,
fsync the directory, rename to `NAME`, fsync the parent. So a directory is complete exactly if its manifest verifies,
whenever the power went. A single file is written as `NAME.tmp`, fsynced and renamed. Logs are appended line by line.

It does not know what the files mean: callers write them into the draft and read them back themselves.
"""

import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinyllm import __version__
from tinyllm.errors import ArtifactError, InputError

MANIFEST_NAME = "manifest.json"
LOCK_NAME = ".lock"
MANIFEST_LIMIT_BYTES = 64 * 2**20
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_CURRENT_FOLDER = -100  # AT_FDCWD


class FileEntry(BaseModel):
    """What the manifest says of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """The last file of a directory: which files it has, and what the writer says of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    """What the directory is: model, shards, checkpoint, tokenizer."""
    tinyllm_version: str
    files: dict[str, FileEntry]
    details: dict[str, Any]
    """The kind's own facts, such as counts and fingerprints."""


@dataclass
class Draft:
    """A directory on its way: put files into `path` and facts into `details`."""

    path: Path
    details: dict[str, Any] = field(default_factory=dict)


@contextmanager
def commit_directory(path: Path, kind: str, *, resumable: bool = False) -> Iterator[Draft]:
    """Gives a draft to fill; on leaving without an error, `path` becomes it in one step, replacing what was there.

    After an error `path` is as it was, and the draft is removed; a `resumable` one stays, and the next draft of the
    same path starts from its files. Raises ArtifactError when the disk refuses, with the bytes it was about, and
    where `path` is something that tinyllm did not commit as this kind: that is never replaced.
    """
    check_replaceable(path, kind)
    draft = Draft(_beside(path, ".tmp"))
    _finish_interrupted_replacement(path)
    if draft.path.exists() and not resumable:
        shutil.rmtree(draft.path)
    try:
        draft.path.mkdir(parents=True, exist_ok=resumable)
        yield draft
        _seal(draft, kind)
        _replace(draft.path, path)
    except BaseException as error:
        size = _size_bytes(draft.path)
        if not resumable:
            shutil.rmtree(draft.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise _refused(path, size, error) from error
        raise


@contextmanager
def commit_file(path: Path) -> Iterator[IO[bytes]]:
    """Gives a binary file to write; on leaving without an error `path` is that file, else it is as it was."""
    draft = _beside(path, ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_directory(path.parent)
    except BaseException as error:
        size = draft.stat().st_size if draft.exists() else 0
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _refused(path, size, error) from error
        raise


@contextmanager
def append_file(path: Path, keep_bytes: int) -> Iterator[IO[bytes]]:
    """Gives a binary file to go on with after its first `keep_bytes` bytes; what is written stays, error or not.

    For parts of a file that comes in pieces; nobody may take it for the whole until `publish_file`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(keep_bytes)
            file.seek(keep_bytes)
            yield file
    except OSError as error:
        raise _refused(path, path.stat().st_size if path.exists() else 0, error) from error


def publish_file(part: Path, path: Path) -> None:
    """Makes a part that has become whole durable, and renames it to `path` in one step."""
    try:
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _refused(path, 0, error) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a small file in one step: after a crash it is the old one or the new one."""
    with commit_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as readable JSON, in one step."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class JsonLines:
    """A log of one JSON object a line, appended to; a last line cut off by a crash is dropped at the next start."""

    def __init__(self, path: Path, keep_through_step: int | None = None) -> None:
        """Opens the log; with `keep_through_step`, first drops lines of later steps."""
        self.path = path
        if path.exists():
            lines = read_json_lines(path)
            kept = [line for line in lines if keep_through_step is None or line.get("step", 0) <= keep_through_step]
            write_file(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        """Adds one line, visible to other processes at once."""
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log, up to the first line that a crash cut off."""
    records = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not isinstance(record, dict):
                break
            records.append(record)
    return records


def read_manifest(directory: Path, kind: str | None = None) -> Manifest:
    """The manifest of a committed directory, checked for its form, its kind, and that each file has its size.

    Raises InputError where there is no such directory, ArtifactError where it is not whole.
    """
    manifest = _parse_manifest(directory, kind)
    for name, entry in manifest.files.items():
        _check_size(directory, name, entry)
    return manifest


def _parse_manifest(directory: Path, kind: str | None) -> Manifest:
    _finish_interrupted_replacement(directory)
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory" if directory.exists() else f"{directory} does not exist")
    path = directory / MANIFEST_NAME
    try:
        if path.stat().st_size > MANIFEST_LIMIT_BYTES:
            raise ArtifactError(f"{path} is larger than {MANIFEST_LIMIT_BYTES} bytes; it is damaged")
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(
            f"{directory} has no {MANIFEST_NAME}: it was not finished, or tinyllm did not write it"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the text"
        raise ArtifactError(f"{path} is damaged at {place}: {first['msg']}") from None
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{directory} holds a {manifest.kind}, not a {kind}")
    return manifest


def verify(directory: Path, kind: str | None = None) -> Manifest:
    """As `read_manifest`, and every file's SHA-256 too. Raises ArtifactError naming the first file that differs."""
    manifest = read_manifest(directory, kind)
    for name, entry in manifest.files.items():
        found = sha256_of(directory / name)
        if found != entry.sha256:
            raise ArtifactError(
                f"{directory / name} is damaged: its SHA-256 is {found[:12]}…, the manifest says {entry.sha256[:12]}…"
            )
    return manifest


def set_aside(path: Path) -> Path:
    """Renames a damaged directory to `NAME.damaged`, so that it is neither used nor lost; gives the new name."""
    aside = _beside(path, ".damaged")
    if aside.exists():
        shutil.rmtree(aside)
    path.rename(aside)
    _sync_directory(path.parent)
    return aside


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive(directory: Path, name: str = "") -> Iterator[None]:
    """Holds `directory/.lock` while inside; a second holder gets an ArtifactError; a dead one frees it.

    With a `name` it is that file of the directory alone which is held, by `.NAME.lock`.
    """
    held, lock_path = (directory / name, directory / f".{name}.lock") if name else (directory, directory / LOCK_NAME)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path, timeout=0)
        lock.acquire()
    except Timeout:
        raise ArtifactError(f"{held} is in use by another run; wait for it, or choose another place") from None
    except OSError as error:
        raise _refused(lock_path, 0, error) from error
    try:
        yield
    finally:
        lock.release()


def check_writable(path: Path) -> None:
    """Raises ArtifactError now rather than after hours of work if `path` cannot be created or replaced."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    target = path if path.exists() else parent
    if not parent.is_dir():
        raise ArtifactError(f"cannot write {path}: {parent} is a file, not a directory")
    if not os.access(target, os.W_OK):
        raise ArtifactError(f"cannot write {path}: no permission in {parent}; choose another place")


def check_room(path: Path, num_bytes: int) -> None:
    """Raises ArtifactError now rather than after hours of work if the disk of `path` has fewer bytes free."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    free_bytes = shutil.disk_usage(parent).free
    if free_bytes < num_bytes:
        raise ArtifactError(
            f"cannot write {path}: it needs {num_bytes} bytes more and {free_bytes} are free; "
            "make room or choose another disk"
        )


def check_replaceable(path: Path, kind: str, *, overwrite: bool = True) -> None:
    """Raises ArtifactError where committing a `kind` to `path` would destroy something.

    That is anything but an empty directory or one of the same kind, whole or not, and without `overwrite` that one too.
    """
    if not path.name:
        raise ArtifactError(f"cannot replace {path} as a whole; name a new directory in it")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        _parse_manifest(path, kind)
    except (ArtifactError, InputError) as error:
        raise ArtifactError(f"will not replace {path}: {error}; remove it, or choose another place") from None
    if not overwrite:
        raise ArtifactError(f"{path} exists already; choose another place, or replace it with --overwrite")


def _seal(draft: Draft, kind: str) -> None:
    """Makes the draft's files durable, then says what they are in a manifest, durable as well."""
    entries = {}
    for path in sorted(draft.path.iterdir()):
        if path.name == MANIFEST_NAME:
            continue
        if path.name == LOCK_NAME:
            path.unlink()  # It kept two writers off this draft; the result has none.
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries[path.name] = FileEntry(bytes=os.fstat(file.fileno()).st_size, sha256=digest)
    manifest = Manifest(kind=kind, tinyllm_version=__version__, files=entries, details=draft.details)
    with (draft.path / MANIFEST_NAME).open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(draft.path)


def _replace(draft: Path, path: Path) -> None:
    """Renames `draft` to `path`. A directory already there is exchanged in one step where the system can."""
    if not path.exists():
        draft.rename(path)
        _sync_directory(path.parent)
        return
    if _exchange(draft, path):
        _sync_directory(path.parent)
        shutil.rmtree(draft)
        return
    # Without an exchange there is a moment with no directory of this name; `_finish_interrupted_replacement` ends it.
    old = _beside(path, ".old")
    path.rename(old)
    draft.rename(path)
    _sync_directory(path.parent)
    shutil.rmtree(old)


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two names atomically; False where the system or the file system has no such call."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_CURRENT_FOLDER, os.fsencode(first), _CURRENT_FOLDER, os.fsencode(second), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _finish_interrupted_replacement(path: Path) -> None:
    """Brings back the old directory if a replacement without exchange stopped between its two renames."""
    old = _beside(path, ".old")
    if not old.is_dir():
        return
    if path.exists():
        shutil.rmtree(old)
    else:
        old.rename(path)


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


def _sync_directory(path: Path) -> None:
    """Makes renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*")) if directory.is_dir() else 0


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _refused(path: Path, written_bytes: int, error: OSError) -> ArtifactError:
    """The one-line story of a write that the system refused."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason += f" after {written_bytes} bytes; make room or choose another disk. What was there before is unharmed"
    return ArtifactError(f"cannot write {path}: {reason}")
