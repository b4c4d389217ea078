"""The one module that writes files: what it has committed is whole, what is not whole was never committed.

A directory is written as `NAME.tmp`: files, fsync each, then `manifest.json` with the size and SHA-256 of each, fsync,
fsync the directory, rename to `NAME`, fsync the parent. So a directory is complete exactly if its manifest verifies,
whenever the power went. A single file is written as `NAME.tmp`, fsynced and renamed. Logs are appended line by line.

Every change on the disk goes through one of the small functions at the end, so that a test can stop the process after
each of them in turn. This module does not know what the files mean: callers write them into the draft and read them
back themselves.
"""

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
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
STAMPS_NAME = ".verified.json"
MANIFEST_LIMIT_BYTES = 64 * 2**20
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_CURRENT_FOLDER = -100  # AT_FDCWD
_TICK_NS = 50_000_000
"""File systems count time in ticks: a file changed this shortly before it was looked at may change again unseen."""
_SELF_CHECKSUM = re.compile(rb',\n  "manifest_sha256": "([0-9a-f]{64})"\n}\n\Z')

_after_operation: Callable[[str, Path], None] = lambda _operation, _path: None  # noqa: E731
"""Called after each change on the disk with what it was and where: a test puts a power cut here."""


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
    manifest_sha256: str | None = None
    """Of the manifest's own text before this line; None in one written by hand."""


@dataclass
class Draft:
    """A directory on its way: put files into `path` and facts into `details`."""

    path: Path
    details: dict[str, Any] = field(default_factory=dict)
    temporary_names: set[str] = field(default_factory=set)
    """Files that serve the making alone; they go when everything else is durable."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of files, as they should be; of the others it is that of what is on the disk."""

    def write(self, name: str, content: str | bytes | Callable[[Path], None]) -> None:
        """Writes one file of the directory; a function is given the path and writes it itself."""
        path = self.path / name
        if callable(content):
            _write_by(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        _after_operation("write", path)


@contextmanager
def commit_directory(
    path: Path, kind: str, *, resumable: bool = False, needed_bytes: int | None = None
) -> Iterator[Draft]:
    """Gives a draft to fill; on leaving without an error, `path` becomes it in one step, replacing what was there.

    After an error `path` is as it was, and the draft is removed; a `resumable` one stays, and the next draft of the
    same path starts from its files. Raises ArtifactError when the disk refuses, with the bytes it was about
    (`needed_bytes`, looked for beforehand, where they are known), and where `path` is something that tinyllm did not
    commit as this kind: that is never replaced.
    """
    check_replaceable(path, kind)
    if needed_bytes is not None:
        check_room(path, needed_bytes)
    draft = Draft(_beside(path, ".tmp"))
    try:
        _finish_interrupted_replacement(path)
        if draft.path.exists() and not resumable:
            _remove_tree(draft.path)
        _make_directory(draft.path)
        yield draft
        _seal(draft, kind)
        _replace(draft.path, path)
    except BaseException as error:
        size = _size_bytes(draft.path)
        if not resumable:
            shutil.rmtree(draft.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise _refused(path, size, error, needed_bytes) from error
        raise


@contextmanager
def commit_file(path: Path, needed_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """Gives a binary file to write; on leaving without an error `path` is that file, else it is as it was."""
    draft = _beside(path, ".tmp")
    try:
        _make_directory(path.parent)
        with draft.open("wb") as file:
            yield file
            file.flush()
            _after_operation("write", draft)
            os.fsync(file.fileno())
            _after_operation("sync", draft)
        _rename(draft, path)
        _sync_directory(path.parent)
    except BaseException as error:
        size = draft.stat().st_size if draft.exists() else 0
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _refused(path, size, error, needed_bytes) from error
        raise


@contextmanager
def append_file(path: Path, keep_bytes: int) -> Iterator[IO[bytes]]:
    """Gives a binary file to go on with after its first `keep_bytes` bytes; what is written stays, error or not.

    For parts of a file that comes in pieces; nobody may take it for the whole until `publish_file`.
    """
    try:
        _make_directory(path.parent)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(keep_bytes)
            file.seek(keep_bytes)
            yield file
        _after_operation("write", path)
    except OSError as error:
        raise _refused(path, path.stat().st_size if path.exists() else 0, error) from error


def publish_file(part: Path, path: Path) -> None:
    """Makes a part that has become whole durable, and renames it to `path` in one step."""
    try:
        _sync(part)
        _rename(part, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _refused(path, 0, error) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a small file in one step: after a crash it is the old one or the new one."""
    data = content.encode() if isinstance(content, str) else content
    with commit_file(path, needed_bytes=len(data)) as file:
        file.write(data)


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
        # Unbuffered: a line that the disk refuses is told at once, and closing has nothing left to write.
        self._file = path.open("ab", buffering=0)

    def append(self, record: dict[str, Any]) -> None:
        """Adds one line, visible to other processes at once. Raises ArtifactError where the disk refuses."""
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        try:
            num_written = self._file.write(line)
            if num_written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _refused(self.path, self.path.stat().st_size, error, len(line)) from error
        _after_operation("append", self.path)

    def sync(self) -> None:
        """Makes the lines so far durable."""
        os.fsync(self._file.fileno())
        _after_operation("sync", self.path)

    def close(self) -> None:
        self._file.close()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log, without lines that are none: the last one where a crash cut it off, and rotten ones."""
    records = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
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
        content = path.read_bytes()
        manifest = Manifest.model_validate_json(content)
    except FileNotFoundError:
        raise ArtifactError(
            f"{directory} has no {MANIFEST_NAME}: it was not finished, or tinyllm did not write it"
        ) from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the text"
        raise ArtifactError(f"{path} is damaged at {place}: {first['msg']}") from None
    if manifest.manifest_sha256 is not None and not _is_true_to_itself(content):
        raise ArtifactError(f"{path} is damaged: its text is not the one that its own checksum was made of")
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{directory} holds a {manifest.kind}, not a {kind}")
    return manifest


def verify(directory: Path, kind: str | None = None) -> Manifest:
    """As `read_manifest`, and every file's SHA-256 too. Raises ArtifactError naming the first file that differs."""
    manifest = read_manifest(directory, kind)
    for name, entry in manifest.files.items():
        _check_content(directory / name, entry)
    return manifest


def verify_changed(directory: Path, kind: str | None = None) -> Manifest:
    """As `verify`, but without reading files again that were right before and were not touched since.

    Not touched means: the same size, inode and times as noted in DIRECTORY/.verified.json. Where nothing can be noted
    (a directory that is read-only), every file is read each time. What a dying disk does to a file behind the file
    system's back shows in `verify` alone.
    """
    manifest = read_manifest(directory, kind)
    known = _read_stamps(directory)
    for name, entry in manifest.files.items():
        if known.get(name) != _stamp(directory / name, entry):
            _check_content(directory / name, entry)
    remember_verified(directory, manifest)
    return manifest


def remember_verified(directory: Path, manifest: Manifest) -> None:
    """Notes that the files are what `manifest` says, for `verify_changed`; called after reading or writing them."""
    now = time.time_ns()
    stamps = {name: _stamp(directory / name, entry) for name, entry in manifest.files.items()}
    settled = {name: stamp for name, stamp in stamps.items() if stamp["changed_ns"] < now - _TICK_NS}
    if settled != _read_stamps(directory) and os.access(directory, os.W_OK):
        write_json(directory / STAMPS_NAME, settled)


def set_aside(path: Path) -> Path:
    """Renames a damaged directory to `NAME.damaged`, so that it is neither used nor lost; gives the new name."""
    aside = _beside(path, ".damaged")
    if aside.exists():
        _remove_tree(aside)
    _rename(path, aside)
    _sync_directory(path.parent)
    return aside


def remove_directory(path: Path) -> None:
    """Removes a committed directory: first its name, in one step, so that no part of it is ever taken for the whole."""
    draft = _beside(path, ".tmp")
    if draft.exists():
        _remove_tree(draft)
    _rename(path, draft)
    _remove_tree(draft)


def remove_drafts(directory: Path) -> list[Path]:
    """Removes what interrupted writes left in `directory` (`*.tmp`), and gives it; for whoever holds its lock."""
    drafts = sorted(directory.glob("*.tmp"))
    for draft in drafts:
        _remove_tree(draft)
    return drafts


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


def check_free(directory: Path) -> None:
    """Raises ArtifactError now, before anything is loaded, if `exclusive` would be refused."""
    if directory.exists():
        with exclusive(directory):
            pass


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
        if path.name == MANIFEST_NAME or path.name in draft.temporary_names:
            continue
        _sync(path)
        entries[path.name] = FileEntry(bytes=path.stat().st_size, sha256=draft.sha256.get(path.name) or sha256_of(path))
    manifest = Manifest(kind=kind, tinyllm_version=__version__, files=entries, details=draft.details)
    (draft.path / MANIFEST_NAME).write_bytes(_with_checksum(manifest))
    _after_operation("write", draft.path / MANIFEST_NAME)
    _sync(draft.path / MANIFEST_NAME)
    for name in draft.temporary_names:
        _remove_file(draft.path / name)
    _sync_directory(draft.path)


def _with_checksum(manifest: Manifest) -> bytes:
    """The manifest as JSON text that ends with its own SHA-256: a flipped bit anywhere in it shows."""
    text = (manifest.model_dump_json(indent=2, exclude={"manifest_sha256"}) + "\n").encode()
    ending = f',\n  "manifest_sha256": "{hashlib.sha256(text).hexdigest()}"\n}}\n'
    return text.removesuffix(b"\n}\n") + ending.encode()


def _is_true_to_itself(content: bytes) -> bool:
    """Whether a manifest's text is what `_with_checksum` made."""
    match = _SELF_CHECKSUM.search(content)
    if match is None:
        return False
    return hashlib.sha256(content[: match.start()] + b"\n}\n").hexdigest() == match[1].decode()


def _replace(draft: Path, path: Path) -> None:
    """Renames `draft` to `path`. A directory already there is exchanged in one step where the system can."""
    if not path.exists():
        _rename(draft, path)
        _sync_directory(path.parent)
        return
    if _exchange(draft, path):
        _after_operation("exchange", path)
        _sync_directory(path.parent)
        _remove_tree(draft)
        return
    # Without an exchange there is a moment with no directory of this name; `_finish_interrupted_replacement` ends it.
    old = _beside(path, ".old")
    _rename(path, old)
    _rename(draft, path)
    _sync_directory(path.parent)
    _remove_tree(old)


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
        _remove_tree(old)
    else:
        _rename(old, path)


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
    """What changes whenever a file is written to, in whatever way."""
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
        stamps = json.loads((directory / STAMPS_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # None yet, or no longer readable: then all files are read again.
    return stamps if isinstance(stamps, dict) else {}


# The changes on the disk. There are no others in this module but the removal of a draft after an error.


def _make_directory(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        _after_operation("make", path)


def _write_by(writer: Callable[[Path], None], path: Path) -> None:
    """Lets a library write `path`, with its errors as OSError and the permissions that other new files have."""
    try:
        writer(path)
    except Exception as error:
        # safetensors tells what the system said in its message alone: "I/O error: ... (os error 28)".
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)


def _sync(path: Path) -> None:
    """Makes a file's content durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    _after_operation("sync", path)


def _rename(path: Path, target: Path) -> None:
    path.replace(target)
    _after_operation("rename", target)


def _remove_file(path: Path) -> None:
    path.unlink()
    _after_operation("remove", path)


def _remove_tree(path: Path) -> None:
    """Removes a directory with all in it, or a file, one after the other."""
    if path.is_dir() and not path.is_symlink():
        for inner in sorted(path.iterdir()):
            _remove_tree(inner)
        path.rmdir()
        _after_operation("remove", path)
    else:
        _remove_file(path)


def _sync_directory(path: Path) -> None:
    """Makes renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _after_operation("sync directory", path)


def _size_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*")) if directory.is_dir() else 0


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _refused(path: Path, written_bytes: int, error: OSError, needed_bytes: int | None = None) -> ArtifactError:
    """The one-line story of a write that the system refused."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        needed = "" if needed_bytes is None else f", it needs {needed_bytes}"
        reason += (
            f" after {written_bytes} bytes{needed}; make room or choose another disk. What was there before is unharmed"
        )
    return ArtifactError(f"cannot write {path}: {reason}")
