"""Locks of an open file, a folder or a run directory; the system frees them when their holder dies.

A lock is advisory: it stops other tinyllm processes only (`machine/system.py` has the calls). No function here
truncates or rewrites a file that exists.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyllm.addresses import refuse_address
from tinyllm.errors import ArtifactError
from tinyllm.machine import system
from tinyllm.storage.checks import refused

LOCK_NAME = ".lock"
LOCK_TEXT = b"tinyllm\n"
"""Content of a `.lock` that tinyllm made: it marks the directory as one of tinyllm's."""
POLL_SECONDS = 0.05


def try_lock(descriptor: int) -> bool:
    """Locks an open file until it is closed; False if another opening of it, in any process, holds the lock."""
    return system.try_lock_file(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of the file `path`; False if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDWR | system.OPEN_OWN_FILE)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def seems_locked(path: Path) -> bool | None:
    """Whether a process of this machine holds the lock of the file `path`; None if the system does not tell.

    Unlike `is_locked`, it never holds the lock itself, so that a process that starts meanwhile finds it free.
    """
    return system.sees_lock(path)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Waits for the lock of a folder itself, and holds it during the block.

    Windows and some network file systems lock no folder. There the block runs without the lock: two writers that
    start within the same millisecond then both refuse, instead of one of them.
    """
    descriptor = system.lock_folder(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds `directory/.lock` during the block; makes the directory if it is missing.

    Raises ArtifactError if another process holds it, or if `.lock` is a file that tinyllm did not make. Raises
    UsageError for an address.
    """
    refuse_address(directory)
    path = directory / LOCK_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = _open_lock(path)
    except OSError as error:
        raise refused(path, 0, error) from error
    try:
        if not try_lock(descriptor):
            raise ArtifactError(f"{directory} is in use by another run; wait for it, or choose another place")
        if os.fstat(descriptor).st_size and not has_lock_text(path):
            raise ArtifactError(f"{path} is not a lock of tinyllm; remove it, or choose another place")
        yield
    finally:
        os.close(descriptor)


def keep_lock(path: Path) -> bool:
    """Locks the file `path`, which is made if it is missing, until this process ends; False if another one holds it."""
    descriptor = _open_lock(path)
    if try_lock(descriptor):
        return True
    os.close(descriptor)
    return False


@contextmanager
def wait_for_lock(
    path: Path, on_wait: Callable[[], None], *, patience_seconds: float, limit_seconds: float
) -> Iterator[bool]:
    """Waits for the lock of the file `path`, which is made if it is missing, and holds it during the block.

    Calls `on_wait` once if that takes more than `patience_seconds`. Yields True, or False without the lock if another
    process holds it for `limit_seconds`. Raises OSError if the system opens or locks no such file.
    """
    descriptor = _open_lock(path)
    try:
        yield _wait(descriptor, on_wait, patience_seconds, limit_seconds)
    finally:
        os.close(descriptor)


def check_free(directory: Path) -> None:
    """Raises ArtifactError before any work if `exclusive` would find another holder."""
    if is_locked(directory / LOCK_NAME):
        raise ArtifactError(f"{directory} is in use by another run; wait for it, or choose another place")


def has_lock_text(path: Path) -> bool:
    """Whether the file `path` is a lock that tinyllm made."""
    try:
        with path.open("rb") as file:
            return file.read(len(LOCK_TEXT) + 1) == LOCK_TEXT
    except OSError:
        return False


def _open_lock(path: Path) -> int:
    """A descriptor of the lock file; a missing file is made with its text."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | system.OPEN_OWN_FILE, 0o666)
        os.write(descriptor, LOCK_TEXT)
        return descriptor
    return os.open(path, os.O_RDWR | system.OPEN_OWN_FILE)


def _wait(descriptor: int, on_wait: Callable[[], None], patience_seconds: float, limit_seconds: float) -> bool:
    """Whether the lock was free within `limit_seconds`; calls `on_wait` once after `patience_seconds`."""
    start, told = time.monotonic(), False
    while not try_lock(descriptor):
        waited = time.monotonic() - start
        if waited > limit_seconds:
            return False
        if waited > patience_seconds and not told:
            on_wait()
            told = True
        time.sleep(POLL_SECONDS)
    return True
