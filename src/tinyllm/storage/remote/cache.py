"""Keeps fetched files on this machine: one folder an entry, whole or absent, bounded in bytes.

    CACHE/remote/inputs/KEY/NAME    a file or directory; KEY is a digest of its address and its version
    CACHE/remote/inputs/KEY.lock    locked by the process that fetches the entry
    CACHE/remote/inputs/KEY.use-PID locked by a process that uses the entry, until it ends

An entry that is used is never removed. The others are removed when room is needed, the least recently used first.
Uploaded outputs (`outputs`) are removed in the same way. Outputs that are not uploaded, and runs, are never removed.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyllm.addresses import shown, tell_address
from tinyllm.errors import ArtifactError
from tinyllm.machine.user_cache import LIMIT_NAME, cache_folder, remote_cache_limit_bytes
from tinyllm.progress import Note
from tinyllm.storage import disk
from tinyllm.storage.checks import check_room, refused
from tinyllm.storage.drafts import open_draft, remove_dead_drafts
from tinyllm.storage.locks import LOCK_NAME, is_locked, keep_lock, wait_for_lock

KIND = "fetched files"
PATIENCE_SECONDS, LONGEST_WAIT_SECONDS = 3.0, 24 * 3600.0
"""Waiting for a process that fetches the same: after the first one line is announced, after the second it ends."""
UPLOADED_NAME = "uploaded"
"""File in the folder of an output after its upload."""
_used: set[str] = set()
"""Keys of the entries that this process uses."""


def inputs_folder() -> Path:
    """The folder of the entries."""
    return cache_folder() / "remote" / "inputs"


def outputs_folder() -> Path:
    """The folder of outputs that are uploaded when they are whole."""
    return cache_folder() / "remote" / "outputs"


def key_of(*facts: object) -> str:
    """The key for facts such as an address and a checksum: 32 hexadecimal digits."""
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()[:32]


def find_or_fetch(
    key: str, place: str, name: str, num_bytes: int, fetch_into: Callable[[Path], None], note: Note
) -> Path:
    """The path of the entry `key`, which `fetch_into` fills under the name `name` if it is missing.

    Another process that fetches the same is waited for. From here on this process uses the entry. Raises ArtifactError
    if the disk refuses, or if `num_bytes` are over the limit of the cache.
    """
    root = inputs_folder()
    folder, path = root / key, root / key / name
    try:
        disk.make_parents(root)
        with _locked(root):
            _begin_use(root, key)
            is_missing = not folder.exists()
        if is_missing:
            lock = wait_for_lock(
                root / f"{key}.lock",
                lambda: note(f"another process fetches {shown(place)}; waiting for it"),
                patience_seconds=PATIENCE_SECONDS,
                limit_seconds=LONGEST_WAIT_SECONDS,
            )
            with lock as held:
                if not held:
                    raise ArtifactError(f"{root / key}.lock is locked for a day; end the process that fetches {place}")
                if not folder.exists():
                    with _locked(root):
                        _make_room(root, place, num_bytes)
                    _fetch(folder, name, fetch_into)
        disk.mark_used(folder)
    except OSError as error:
        raise refused(folder, 0, error, num_bytes) from error
    tell_address(path, place)
    return path


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Holds the lock of the whole cache: no entry is removed between a look at it and the start of its use."""
    with wait_for_lock(root / "entries.lock", lambda: None, patience_seconds=60, limit_seconds=LONGEST_WAIT_SECONDS):
        yield


def _begin_use(root: Path, key: str) -> None:
    if key in _used:
        return
    for left in root.glob(f"{key}.use-*"):
        if not is_locked(left):
            disk.remove_file(left)
    if keep_lock(root / f"{key}.use-{os.getpid()}"):
        _used.add(key)


def _fetch(folder: Path, name: str, fetch_into: Callable[[Path], None]) -> None:
    """Fills a draft and gives it the entry's name in one step."""
    with open_draft(folder, KIND) as draft:
        disk.make_directory(draft.new, 0o700)
        fetch_into(draft.new / name)
        disk.sync_directory(draft.new)
        disk.rename(draft.new, folder)
        disk.sync_directory(folder.parent)


def _make_room(root: Path, place: str, num_bytes: int) -> None:
    """Removes unused entries, the least recently used first, until `num_bytes` more keep the limit."""
    limit = remote_cache_limit_bytes()
    remove_dead_drafts(root)
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    folders += [mark.parent for mark in outputs_folder().glob(f"*/{UPLOADED_NAME}")]
    entries = {path: _size_bytes(path) for path in folders}
    total = sum(entries.values())
    for path in sorted(entries, key=lambda path: path.stat().st_mtime_ns):
        if total + num_bytes <= limit:
            break
        if _remove_unused(root, path):
            total -= entries[path]
    if total + num_bytes > limit:
        raise ArtifactError(
            f"{shown(place)} has {num_bytes} bytes, and of the {limit} bytes of {root} {total} are in use; "
            f"set {LIMIT_NAME} to more gigabytes"
        )
    check_room(root / "new", num_bytes)


def _remove_unused(root: Path, folder: Path) -> bool:
    """Removes an entry with its locks; False if a process uses it."""
    users = [*root.glob(f"{folder.name}.use-*"), folder / LOCK_NAME]
    if folder.name in _used or any(map(is_locked, users)):
        return False
    with open_draft(folder, KIND) as draft:
        disk.rename(folder, draft.new)
    for lock in (*users[:-1], root / f"{folder.name}.lock"):
        with contextlib.suppress(FileNotFoundError):
            disk.remove_file(lock)
    return True


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
