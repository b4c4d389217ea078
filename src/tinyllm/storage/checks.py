"""Checks before hours of work: may this path be written, is there room, would something be lost?

Nothing here changes a file.
"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tinyllm.addresses import refuse_address
from tinyllm.errors import ArtifactError, InputError
from tinyllm.storage.manifest import scan_manifest


def follow_link(path: Path) -> Path:
    """The path to write for an output: `path`, or its target if it is a symbolic link.

    Raises ArtifactError for links that point at each other.
    """
    if not path.is_symlink():
        return path
    try:
        return path.resolve(strict=path.exists())
    except (OSError, RuntimeError) as error:
        raise ArtifactError(f"{path} is a symbolic link that leads nowhere: {error}") from None


def check_writable(path: Path) -> None:
    """Raises ArtifactError if `path` cannot be created or replaced, UsageError if it is an address."""
    refuse_address(path)
    path = follow_link(path)
    parent = nearest_folder(path)
    target = path if path.exists() else parent
    if not parent.is_dir():
        raise ArtifactError(f"cannot write {path}: {parent} is a file, not a directory")
    if not os.access(target, os.W_OK):
        raise ArtifactError(f"cannot write {path}: no permission in {parent}; choose another place")


def check_room(path: Path, num_bytes: int) -> None:
    """Raises ArtifactError if the disk of `path` has fewer bytes free."""
    free = free_bytes(path)
    if free < num_bytes:
        raise ArtifactError(
            f"cannot write {path}: it needs {num_bytes} bytes more and {free} are free; "
            "make room or choose another disk"
        )


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of `path`, which may not exist."""
    return shutil.disk_usage(_existing(path)).free


def keeps_reserve(path: Path, num_bytes: int, reserve_bytes: int) -> bool:
    """Whether the disk of `path`, with `num_bytes` more, keeps `reserve_bytes` or a twentieth of its size free."""
    disk = shutil.disk_usage(_existing(path))
    return disk.free - num_bytes >= min(reserve_bytes, disk.total // 20)


def _existing(path: Path) -> Path:
    """`path`, or the folder above it that exists."""
    return path if path.exists() else nearest_folder(path)


def nearest_folder(path: Path) -> Path:
    """The nearest existing folder above `path`."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


def check_replaceable(path: Path, kind: str, *, overwrite: bool = True) -> None:
    """Raises ArtifactError if committing a directory of this `kind` to `path` would destroy something.

    A free name and an empty directory are allowed, and with `overwrite` a directory of the same kind.
    """
    path = follow_link(path)
    if not path.name:
        raise ArtifactError(f"cannot replace {path} as a whole; name a new directory in it")
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        scan_manifest(path, kind)
    except (ArtifactError, InputError) as error:
        raise ArtifactError(f"will not replace {path}: {error}; remove it, or choose another place") from None
    if not overwrite:
        raise _exists(path, "place")


def check_new_file(path: Path, what: str, is_own_kind: Callable[[Path], bool], *, overwrite: bool) -> None:
    """Raises ArtifactError if writing the file `path` would destroy something, or cannot work.

    An existing file is refused without `overwrite`. With it, `is_own_kind` must accept the file. `what` names the kind
    in messages, such as "a GGUF file".
    """
    check_writable(path)
    place = follow_link(path)
    if not os.path.lexists(place):
        return
    if not place.is_file():
        raise ArtifactError(f"{path} is there and is not a file; choose another name")
    if not overwrite:
        raise _exists(path, "name")
    if place.stat().st_size and not is_own_kind(place):
        raise ArtifactError(f"will not replace {path}: it is not {what}; remove it, or choose another name")


def _exists(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path} exists already", hint=f"choose another {what}, or replace it with `overwrite=True`")


def is_text(path: Path) -> bool:
    """Whether a file begins as UTF-8 text: its first 64 KiB have no NUL byte and no invalid sequence."""
    with path.open("rb") as file:
        head = file.read(2**16)
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.end == len(head) == 2**16
    return b"\0" not in head


def refused(path: Path, written_bytes: int, error: OSError, needed_bytes: int | None = None) -> ArtifactError:
    """The error, in one line, for a write that the system refused."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        needed = "" if needed_bytes is None else f", it needs {needed_bytes}"
        reason += (
            f" after {written_bytes} bytes{needed}; make room or choose another disk. What was there before is unharmed"
        )
    return ArtifactError(f"cannot write {path}: {reason}")
