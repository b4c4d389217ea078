"""One small function for each kind of change on the disk.

Every change goes through this module, so that a test can stop the process after each of them in turn. Nothing here
knows what a file means. All functions raise OSError if the system refuses.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from tinyllm.machine import system

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.OPEN_OWN_FILE


def _ignore(operation: str, path: Path) -> None:
    """The hook outside tests."""


after_operation: Callable[[str, Path], None] = _ignore
"""Called after each change with its name and its path: a test puts a crash or a power cut here."""


def make_directory(path: Path, mode: int = 0o777) -> None:
    """Makes the folder `path`. Raises FileExistsError if anything has that name."""
    path.mkdir(mode)
    after_operation("make", path)


def make_parents(path: Path) -> None:
    """Makes the folder `path` and its missing parents."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        after_operation("make", path)


def create_file(path: Path, content: bytes) -> None:
    """Writes a file that did not exist. Raises FileExistsError for any existing name, a symbolic link included."""
    descriptor = os.open(path, _NEW_FILE, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    after_operation("write", path)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file inside a draft."""
    path.write_bytes(content)
    after_operation("write", path)


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """Writes a file inside a draft, piece by piece."""
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
    after_operation("write", path)


def link_or_copy(path: Path, target: Path) -> None:
    """Gives a file a second name in a draft, or a copy where the file system has no links."""
    try:
        target.hardlink_to(path)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, target)
    after_operation("link", target)


def mark_used(path: Path) -> None:
    """Sets the time of the last change of a file or folder to the present."""
    os.utime(path)
    after_operation("mark", path)


def write_by(writer: Callable[[Path], None], path: Path) -> None:
    """Calls a library's `writer`; its errors become OSError, and the file gets the permissions of other new files."""
    try:
        writer(path)
    except Exception as error:
        # safetensors reports the system's error in its message alone: "I/O error: ... (os error 28)".
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)
    after_operation("write", path)


def sync(path: Path) -> None:
    """Makes a file's content durable."""
    system.sync_file(path)
    after_operation("sync", path)


def sync_directory(path: Path) -> None:
    """Makes the names inside `path` durable."""
    if system.sync_folder(path):
        after_operation("sync directory", path)


def rename(path: Path, target: Path) -> None:
    """Renames `path` to `target`, which it replaces if that is a file, or an empty directory as `path` is one."""
    if system.IS_WINDOWS and path.is_dir() and target.is_dir():
        target.rmdir()
    path.replace(target)
    after_operation("rename", target)


def exchange(first: Path, second: Path) -> bool:
    """Swaps two names in one step; False if the system or the file system has no such call."""
    if not system.exchange_names(first, second):
        return False
    after_operation("exchange", second)
    return True


def remove_file(path: Path) -> None:
    """Removes a file, or a symbolic link without its target."""
    path.unlink()
    after_operation("remove", path)


def remove_empty_directory(path: Path) -> None:
    """Removes a folder. Raises OSError if anything is in it."""
    path.rmdir()
    after_operation("remove", path)


def remove_tree(path: Path) -> None:
    """Removes a folder with its content, or a file."""
    if path.is_dir() and not path.is_symlink():
        for inner in sorted(path.iterdir()):
            remove_tree(inner)
        remove_empty_directory(path)
    else:
        remove_file(path)
