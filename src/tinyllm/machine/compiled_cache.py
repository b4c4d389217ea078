"""The cache of compiled code in a user's cache folder; only files that the user owns are loaded.

A file is named NAME-KEY-DIGEST and a suffix. The key covers everything that the code depends on; the digest is that of
the content. A digest proves that a file is whole, not who wrote it. So folder and file must belong to the user, and
must not be writable by others. NAME-KEY.lock is locked while a process compiles; the system frees it if that dies.
"""

import contextlib
import ctypes
import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from tinyllm import storage
from tinyllm.errors import ArtifactError
from tinyllm.machine import system
from tinyllm.progress import Note

KIND = "compiled code"
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SYSTEM_USERS = (0, 65534)
"""Root, and the id of users that are not mapped into a container, such as the host's root."""
PATIENCE_SECONDS, LONGEST_WAIT_SECONDS = 3.0, 120.0
"""Waiting for another process that compiles: after the first one line is announced, after the second it ends."""


_compiling = threading.Lock()
"""One compilation at a time in a process: compilers have global settings, and a later caller finds the code."""


def code_key(sources: Iterable[Path], facts: Iterable[str]) -> str:
    """The key of compiled code: 16 hexadecimal digits of the SHA-256 of the files `sources`, of `facts` and of the CPU.

    The facts name the compiler, its options and the versions of libraries; `cpu_facts` describes the CPU.
    """
    digest = hashlib.sha256()
    for fact in (*(path.read_bytes() for path in sources), *map(str.encode, (*facts, *cpu_facts()))):
        digest.update(len(fact).to_bytes(8, "little") + fact)
    return digest.hexdigest()[:16]


def cpu_facts() -> tuple[str, ...]:
    """The CPU for which compilers make native code: LLVM's triple, name and features, and the system's features.

    Both lists count, because either may know a feature that the other lacks: LLVM on every system, Linux with a newer
    kernel. Code for one CPU can be an illegal instruction on another that shares the cache folder.
    """
    import llvmlite.binding as llvm  # takes 0.05 s, and only a process that looks for compiled code needs it

    features: str = llvm.get_host_cpu_features().flatten()
    name: str = llvm.get_host_cpu_name()
    return (llvm.get_process_triple(), name, features, *sorted(system.processor_features()))


class CompiledCache:
    """One folder of compiled code. A folder that is not private is not used, and `note` gets the reason."""

    def __init__(self, folder: Path, note: Note) -> None:
        self._folder = folder
        self._note = note
        self._refused: set[Path] = set()
        self._complaint = complaint_about_folder(folder)
        if self._complaint:
            note(f"{folder} is not used, so each start compiles again: {self._complaint}")

    def find_or_compile(
        self, name: str, key: str, ending: str, compile_now: Callable[[], bytes]
    ) -> tuple[Path | None, bytes]:
        """Path and content of the cached code, or of what `compile_now` returns, which is kept; path None if not kept.

        One of several processes compiles; the others wait and load its code, and `note` gets a line if that takes
        long. Without a lock each compiles, and `note` gets a line with the reason.
        """
        with _compiling, contextlib.ExitStack() as stack:
            if found := self.find(name, key, ending):
                return found
            problem = self._wait_for_lock(stack, name, key)
            if found := self.find(name, key, ending):
                return found
            content = compile_now()
            path = self.keep(name, key, ending, content)
            if problem and path:  # a folder that takes no file either is announced already
                self._note(f"compiled code cannot be locked, so processes that start together all compile: {problem}")
            return path, content

    def find(self, name: str, key: str, ending: str) -> tuple[Path, bytes] | None:
        """Path and content of the cached code; None if there is no whole file that belongs to the user."""
        if self._complaint:
            return None
        try:
            paths = sorted(self._folder.glob(f"{name}-{key}-*{ending}"))
        except OSError:
            return None
        for path in paths:
            try:
                content, complaint = _read_private(path)
            except OSError:
                continue  # removed or replaced meanwhile, or a link
            if complaint:
                self._refuse(path, complaint)
            elif path.name == _file_name(name, key, content, ending):
                return path, content
        return None

    def keep(self, name: str, key: str, ending: str, content: bytes) -> Path | None:
        """Writes code to the cache and returns its path; None if the folder is not private or not writable.

        `note` gets one line if writing fails.
        """
        if self._complaint:
            return None
        path = self._folder / _file_name(name, key, content, ending)
        try:
            make_private_folder(self._folder)
            with storage.open_draft(path, KIND) as draft:
                storage.disk.create_file(draft.new, content)
                draft.new.chmod(PRIVATE_FILE)
                storage.publish_file(draft, draft.new)
        except (ArtifactError, OSError) as error:
            if found := self.find(name, key, ending):
                return found[0]  # another process was faster
            self._note(f"the compiled code is not cached, so the next start compiles again: {error}")
            return None
        return path

    def _refuse(self, path: Path, complaint: str) -> None:
        """Announces once that `path` is not used."""
        if path not in self._refused:
            self._refused.add(path)
            self._note(f"{path} is not used: {complaint}")

    def _wait_for_lock(self, stack: contextlib.ExitStack, name: str, key: str) -> str:
        """Waits for the lock of this code, which `stack` then holds; returns the reason if there is none."""
        if self._complaint:
            return ""
        path = self._folder / f"{name}-{key}.lock"
        lock = storage.wait_for_lock(
            path,
            lambda: self._note(f"another process compiles the same code; waiting for it ({path} is locked)"),
            patience_seconds=PATIENCE_SECONDS,
            limit_seconds=LONGEST_WAIT_SECONDS,
        )
        try:
            make_private_folder(self._folder)
            held = stack.enter_context(lock)
        except (ArtifactError, OSError) as error:
            return str(error)
        if not held:
            self._note(f"{path} is locked for {LONGEST_WAIT_SECONDS:.0f} s; this process compiles too")
        return ""


def load_library(path: Path | None, content: bytes, note: Note) -> ctypes.CDLL:
    """The shared library `content`, loaded from `path`, else from a private temporary copy, else from memory.

    A file system may forbid running its files (`noexec`); `note` then gets a line that names the copy in use.
    Raises OSError if no copy can be loaded.
    """
    if path is not None:
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            note(f"{path.parent} does not let code run ({error}); a temporary copy is loaded instead")
    try:
        with tempfile.TemporaryDirectory(prefix="tinyllm-compiled-") as folder:
            copy = Path(folder) / "library.so"
            storage.disk.create_file(copy, content)
            return ctypes.CDLL(str(copy))
    except OSError as error:
        library = system.library_from_memory(content)
        if library is None:
            raise
        note(f"{tempfile.gettempdir()} does not let code run ({error}); a copy in memory is loaded instead")
        return library


def complaint_about_folder(folder: Path) -> str:
    """The reason why code in `folder` cannot be trusted; empty for a private or missing folder."""
    if system.user_id() is None:
        return ""
    try:
        place = folder.resolve()
        if place.exists() and (complaint := _complaint(place.stat())):
            return f"{complaint}; make it yours alone, or name another cache folder in XDG_CACHE_HOME"
        for parent in place.parents:
            if parent.exists() and (complaint := _complaint_about_parent(parent.stat())):
                return f"its parent {parent} is not safe: {complaint}; name another cache folder in XDG_CACHE_HOME"
    except (OSError, RuntimeError) as error:
        return str(error)
    return ""


def make_private_folder(folder: Path) -> None:
    """Creates `folder` and its missing parents, accessible to the user alone. Raises OSError or ArtifactError."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    try:
        storage.disk.make_directory(folder, PRIVATE_FOLDER)
    except FileExistsError:
        if not folder.is_dir():
            raise


def _read_private(path: Path) -> tuple[bytes, str]:
    """The content of a file and "", or b"" and the reason why it is not trusted. Checks the open file, not its path."""
    descriptor = os.open(path, os.O_RDONLY | system.OPEN_UNKNOWN_FILE)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b"", "it is not a regular file"
        complaint = _complaint(status)
        return (b"", complaint) if complaint else (file.read(), "")


def _complaint(status: os.stat_result) -> str:
    user = system.user_id()
    if user is None:
        return ""
    if status.st_uid != user:
        return f"it belongs to user {status.st_uid}, not to {user}"
    return "others may write to it" if status.st_mode & _OTHERS_WRITE else ""


def _complaint_about_parent(status: os.stat_result) -> str:
    """The reason why others could replace a folder in this parent; a sticky parent such as /tmp is safe."""
    if status.st_uid not in (system.user_id(), *_SYSTEM_USERS):
        return f"it belongs to user {status.st_uid}"
    sticky = status.st_mode & stat.S_ISVTX
    return "everybody may write to it" if status.st_mode & stat.S_IWOTH and not sticky else ""


def _file_name(name: str, key: str, content: bytes, ending: str) -> str:
    return f"{name}-{key}-{hashlib.sha256(content).hexdigest()[:32]}{ending}"
