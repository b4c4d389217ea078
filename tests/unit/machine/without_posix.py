"""A process as on a system without POSIX: no `fcntl`, no `resource`, no /proc, no affinity, no user ids.

`msvcrt` is a stand-in. Its locks have Windows' two properties: another opening of the file is refused, in this process
too, and a locked byte cannot be read. Like Windows, the process refuses to remove or rename a file that it has open.
"""

import errno
import fcntl
import os
import stat
import struct
import subprocess  # noqa: F401 (it takes the system for Windows if `msvcrt` exists before it)
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

DESCRIPTORS = Path("/proc/self/fd")


def lock_byte(descriptor: int, mode: int, num_bytes: int) -> None:
    """`msvcrt.locking` by Linux' locks of an open file description."""
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    assert position >= os.fstat(descriptor).st_size, "a locked byte of the content cannot be read on Windows"
    request = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, position, num_bytes, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        raise OSError(errno.EACCES, "Permission denied") from error


def open_paths() -> set[Path]:
    """The paths of the files that this process has open."""
    found = set()
    for link in DESCRIPTORS.iterdir():
        try:
            found.add(link.readlink())
        except FileNotFoundError:  # the listing itself
            continue
    return found


def refusing_open_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of a path, which fails while the process has the path or a file below it open."""

    def refuse_or_call(path: Path, *others: Any, **named: Any) -> Any:
        for place in (path, *(other for other in others if isinstance(other, Path))):
            if any(found.is_relative_to(place.absolute()) for found in open_paths()):
                raise PermissionError(errno.EACCES, "it is open", str(place))
        return function(path, *others, **named)

    return refuse_or_call


def replacing_no_folder(rename: Callable[..., Any]) -> Callable[..., Any]:
    """`rename`, which fails if a directory has the new name already."""

    def refuse_or_rename(path: Path, target: Path) -> Any:
        if target.is_dir():
            raise PermissionError(errno.EACCES, "it is a directory", str(target))
        return rename(path, target)

    return refuse_or_rename


def syncing_writable_files(sync: Callable[..., None]) -> Callable[..., None]:
    """`os.fsync`, which fails for a file that is open for reading only."""

    def refuse_or_sync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        sync(descriptor)

    return refuse_or_sync


def leave_posix() -> None:
    """Takes away what Windows does not have, and adds what it has."""
    stand_in: Any = ModuleType("msvcrt")
    stand_in.LK_NBLCK, stand_in.locking = 2, lock_byte
    sys.modules["msvcrt"] = stand_in
    sys.modules["fcntl"] = sys.modules["resource"] = None  # type: ignore[assignment]
    for name in ("sched_getaffinity", "getuid", "memfd_create", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"):
        delattr(os, name)
    os.fsync = syncing_writable_files(os.fsync)
    for name in ("unlink", "rmdir", "replace", "rename"):
        setattr(Path, name, refusing_open_files(getattr(Path, name)))
    Path.replace = replacing_no_folder(Path.replace)  # type: ignore[method-assign]

    from tinyllm.machine import system

    missing = Path("/", "nowhere")
    system.MEMINFO = system.CGROUPS = system.CPUINFO = missing
    system.IS_WINDOWS = True
    system.exchange_names = lambda first, second: False


def lock(folder: Path) -> None:
    """A second holder, a foreign file, and a lock whose holder is gone."""
    from tinyllm import storage
    from tinyllm.errors import ArtifactError

    try:
        with storage.exclusive(folder), storage.exclusive(folder):
            print("both")
    except ArtifactError as error:
        print(error)
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / ".lock").write_text("somebody's notes")
    try:
        with storage.exclusive(foreign):
            print("taken")
    except ArtifactError as error:
        print(error)
    with storage.exclusive(folder):
        print("free")


def commit(folder: Path) -> None:
    """A file and a directory, each written and replaced; an empty directory becomes a committed one."""
    from tinyllm import storage

    (folder / "empty").mkdir()
    for text in ("old", "new"):
        storage.write_file(folder / "file", text)
        for name in ("thing", "empty"):
            with storage.commit_directory(folder / name, "test", with_stamps=True) as draft:
                draft.write("a.txt", text)
        (folder / "thing" / "notes.txt").write_text("mine")
    assert stat.S_ISREG((folder / "thing" / "a.txt").stat().st_mode)


def show_machine() -> None:
    from tinyllm.machine import system
    from tinyllm.machine.device import num_available_cores
    from tinyllm.machine.memory import available_memory_bytes

    print(num_available_cores(), available_memory_bytes(), system.peak_memory_bytes(), system.user_id())


def generate(path: Path) -> None:
    """Saves a copy of a model, loads it and prints a text that it continues."""
    from tinyllm.loading import load
    from tinyllm.model_dir import load_model, save_model

    copy = path.with_name("copy")
    model, tokenizer = load_model(path)
    save_model(copy, model, model.config, tokenizer)
    generator = load(copy, device="cpu", dtype="bfloat16")
    print(repr(generator.generate("the bear", max_new_tokens=8, seed=1)[0].text))


if __name__ == "__main__":
    leave_posix()
    match sys.argv[1:]:
        case ["lock", folder]:
            lock(Path(folder))
        case ["commit", folder]:
            commit(Path(folder))
        case ["generate", model]:
            generate(Path(model))
        case _:
            show_machine()
