"""Drafts: private folders in which an output is made before it takes its name.

A draft is a folder `.tinyllm-TOKEN-CHECK.draft` beside its target. TOKEN is 16 random hexadecimal digits, new on each
use, and CHECK is a checksum of TOKEN. Contents:

    tinyllm-draft.json  the mark: the folder's name, the target, the kind
    new                 the content
    old                 the previous content, during a replacement without an atomic exchange

The mark is also the lock: its writer holds it until the draft is gone. A draft with an unlocked mark was left by a
process that died. Only a writer of the same target removes it, or takes it over. A folder without a valid mark is never
touched. Readers neither make nor remove drafts.
"""

import contextlib
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinyllm.addresses import refuse_address
from tinyllm.errors import ArtifactError
from tinyllm.machine import system
from tinyllm.storage import disk
from tinyllm.storage.checks import refused
from tinyllm.storage.locks import is_locked, locked_folder, try_lock
from tinyllm.storage.manifest import foreign_entries

MARK_NAME = "tinyllm-draft.json"
MARK_LIMIT_BYTES = 2**16
_NAME = re.compile(r"\.tinyllm-([0-9a-f]{16})-[0-9a-f]{8}\.draft")
_held_names: set[str] = set()
"""Names of the drafts that `hold` keeps in this process: their targets may be written from inside."""


@dataclass
class Draft:
    """A draft folder on the disk."""

    folder: Path
    target: Path
    kind: str
    """The kind of the output: that of a directory, or "file"."""
    keep: bool = False
    """Whether the folder stays when its writer leaves it, for the next writer to continue."""

    @property
    def new(self) -> Path:
        """Path of the new content."""
        return self.folder / "new"

    @property
    def old(self) -> Path:
        """Path of the previous content, between the two renames of a replacement without exchange."""
        return self.folder / "old"

    @property
    def is_live(self) -> bool:
        """Whether a living process writes this draft."""
        return is_locked(self.folder / MARK_NAME)


@contextmanager
def open_draft(target: Path, kind: str, *, resumable: bool = False) -> Iterator[Draft]:
    """Yields a locked draft for `target`, and removes it at the end unless its `keep` is set.

    Drafts that dead writers of the same target left are removed first. With `resumable`, one of the same kind is taken
    over instead. Raises ArtifactError if a living process writes the same target, OSError if the disk refuses.
    Raises UsageError for an address.
    """
    refuse_address(target)
    disk.make_parents(target.parent)
    with locked_folder(target.parent):
        _remove_remains(target.parent)
        left = None
        for found in drafts_of(target):
            if found.folder.name in _held_names:
                continue
            if found.is_live:
                raise ArtifactError(
                    f"{target} is being written by another process; wait for it, or choose another place"
                )
            if resumable and left is None and found.kind == kind:
                left = found
            else:
                remove_draft(found)
        draft = left or _make_draft(target, kind)
        descriptor = _lock(draft)
    draft.keep = False
    try:
        yield draft
    finally:
        with contextlib.ExitStack() as lock:
            lock.callback(os.close, descriptor)
            if system.IS_WINDOWS:
                lock.close()  # Windows does not remove the mark while it is open.
            if not draft.keep:
                # A draft that cannot be removed is dead for the next writer, which removes it.
                with contextlib.suppress(OSError):
                    remove_draft(draft)


@contextmanager
def hold(target: Path, kind: str, *, resumable: bool = False) -> Iterator[Draft]:
    """Keeps other processes from writing `target` during the block; commits from this process still work.

    Gives the draft, whose folder may hold work on the target. As in `open_draft`, a `resumable` one takes over what a
    dead writer left, and stays if its `keep` is set.
    """
    try:
        with open_draft(target, kind, resumable=resumable) as draft:
            _held_names.add(draft.folder.name)
            try:
                yield draft
            finally:
                _held_names.discard(draft.folder.name)
    except OSError as error:
        raise refused(target, 0, error) from error


def draft_name(token: str) -> str:
    """The name of the draft folder with a token of 16 hexadecimal digits."""
    return f".tinyllm-{token}-{zlib.crc32(b'tinyllm draft ' + token.encode()):08x}.draft"


def drafts_of(target: Path) -> list[Draft]:
    """The drafts of `target`, living and dead; changes nothing."""
    return [draft for draft in drafts_in(target.parent) if draft.target.name == target.name]


def drafts_in(folder: Path) -> list[Draft]:
    """The drafts in a folder that carry a valid mark, by name; changes nothing."""
    found = (_read_mark(path) for path in _named_drafts(folder))
    return [draft for draft in found if draft is not None]


def remove_dead_drafts(folder: Path) -> list[Draft]:
    """Removes the drafts that dead writers left in `folder` and returns them; for the holder of the folder's `.lock`.

    A previous content that lost its name gets it back.
    """
    if not folder.is_dir():
        return []
    with locked_folder(folder):
        _remove_remains(folder)
        dead = [draft for draft in drafts_in(folder) if not draft.is_live]
        for draft in dead:
            remove_draft(draft)
    return dead


def remove_dead_drafts_of(target: Path) -> None:
    """Removes the drafts that dead writers of `target` left; for a writer that finds nothing to do."""
    with locked_folder(target.parent):
        _remove_remains(target.parent)
        for draft in drafts_of(target):
            if not draft.is_live:
                remove_draft(draft)


def remove_draft(draft: Draft) -> None:
    """Removes a draft: renames a previous content without a name back, moves foreign files, removes the mark last."""
    if os.path.lexists(draft.old) and not os.path.lexists(draft.target):
        disk.rename(draft.old, draft.target)
        disk.sync_directory(draft.target.parent)
    for content in (draft.new, draft.old):
        if os.path.lexists(content):
            return_foreign(content, draft.target)
            disk.remove_tree(content)
    for path in sorted(draft.folder.iterdir()):
        if path.name != MARK_NAME:
            disk.remove_tree(path)
    disk.remove_file(draft.folder / MARK_NAME)
    disk.remove_empty_directory(draft.folder)


def empty_draft(draft: Draft) -> None:
    """Removes everything in a draft that this process holds, but its mark."""
    for path in sorted(draft.folder.iterdir()):
        if path.name != MARK_NAME:
            disk.remove_tree(path)


def return_foreign(content: Path, target: Path) -> None:
    """Moves files that tinyllm did not write from a replaced directory into the one that has its name."""
    for path in foreign_entries(content):
        disk.rename(path, free_name(target / path.name))


def free_name(path: Path) -> Path:
    """`path`, or if that exists `path` with -2, -3 ... at its end."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _named_drafts(folder: Path) -> list[Path]:
    """Folders whose name is a draft's, checksum included; symbolic links are none."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".tinyllm-") and _is_folder(entry)]
    except OSError:
        return []  # no such folder, or it may not be listed
    return [folder / name for name in sorted(names) if _is_draft_name(name)]


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_draft_name(name: str) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and name == draft_name(match[1])


def _read_mark(folder: Path) -> Draft | None:
    """The draft in `folder`; None if the mark is missing, damaged, or names another folder."""
    path = folder / MARK_NAME
    try:
        if path.is_symlink() or path.stat().st_size > MARK_LIMIT_BYTES:
            return None
        mark = json.loads(path.read_bytes())
        name, target, kind = mark["draft"], mark["target"], mark["kind"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    if name != folder.name or not isinstance(target, str) or not isinstance(kind, str) or Path(target).name != target:
        return None
    return Draft(folder, folder.parent / target, kind)


def _make_draft(target: Path, kind: str) -> Draft:
    draft = Draft(target.parent / draft_name(secrets.token_hex(8)), target, kind)
    disk.make_directory(draft.folder, 0o700)
    mark = {"draft": draft.folder.name, "target": target.name, "kind": kind}
    disk.create_file(draft.folder / MARK_NAME, (json.dumps(mark) + "\n").encode())
    disk.sync(draft.folder / MARK_NAME)
    return draft


def _lock(draft: Draft) -> int:
    """The open, locked mark of a draft that nobody else knows or holds."""
    descriptor = os.open(draft.folder / MARK_NAME, os.O_RDWR | system.OPEN_OWN_FILE)
    if not try_lock(descriptor):
        os.close(descriptor)
        raise ArtifactError(f"{draft.target} is being written by another process; wait for it")
    return descriptor


def _remove_remains(folder: Path) -> None:
    """Removes drafts that died before their mark was whole, or after it was removed; for the holder of the folder.

    Such a draft is a folder with a draft's name that holds at most an empty mark.
    """
    for path in _named_drafts(folder):
        contents = list(path.iterdir())
        mark = path / MARK_NAME
        if contents == [mark] and mark.stat().st_size == 0 and not is_locked(mark):
            disk.remove_file(mark)
        elif contents:
            continue
        disk.remove_empty_directory(path)
