"""Gives a command a path of this machine for an output at an address, and uploads the output when it is whole.

    CACHE/remote/outputs/KEY/NAME      the output as the command wrote it; KEY is a digest of the address
    CACHE/remote/outputs/KEY/uploaded  after the upload; the cache may then remove the folder when it needs room

An output that is at the address already decides as on a disk: it is refused, or replaced if the command says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyllm.addresses import join, name_of, opened_address, shown, tell_address
from tinyllm.errors import ArtifactError
from tinyllm.progress import SILENT, Note
from tinyllm.storage import disk
from tinyllm.storage.commit import write_file
from tinyllm.storage.drafts import open_draft
from tinyllm.storage.locks import LOCK_NAME, exclusive
from tinyllm.storage.manifest import MANIFEST_NAME, Manifest, parse_manifest
from tinyllm.storage.remote.cache import UPLOADED_NAME, key_of, outputs_folder
from tinyllm.storage.remote.fetch import download, find_object, read_small
from tinyllm.storage.remote.upload import (
    check_can_write,
    check_replaceable_address,
    check_writable_address,
    settle,
    upload_directory,
    upload_file,
)


@contextmanager
def directory_output(
    path: Path, kind: str, *, overwrite: bool, note: Note = SILENT.note
) -> Iterator[tuple[Path, bool]]:
    """Yields a path at which the block commits a directory of this kind, and whether it may replace another.

    A path of this machine is yielded as it is, with `overwrite`. The directory for an address is then uploaded. Raises
    ArtifactError for an address with something else, UsageError for one that is not written to. Raises UploadError if
    the upload fails; the same call then uploads what is whole already.
    """
    place = opened_address(path)
    if place is None:
        yield path, overwrite
        return
    check_writable_address(place)
    folder = outputs_folder() / key_of(place)
    local = folder / name_of(place)
    tell_address(local, place)
    with exclusive(folder):
        settle(place, kind, note)
        old = check_replaceable_address(place, kind, note)
        if old is None:
            check_can_write(place, note)
        _take_over(local, place, old, kind, note)
        _remove(folder / UPLOADED_NAME)
        # A copy here of what never arrived is no reason to refuse.
        yield local, overwrite or old is None
        upload_directory(local, place, kind, note)
        write_file(folder / UPLOADED_NAME, "")


@contextmanager
def file_output(path: Path, *, overwrite: bool, note: Note = SILENT.note) -> Iterator[Path]:
    """Yields a path at which the block writes one file; one for an address is then uploaded, with the files beside it.

    A path of this machine is yielded as it is. Raises ArtifactError if the address has an object, without `overwrite`,
    and if a file beside it would replace another one.
    """
    place = opened_address(path)
    if place is None:
        yield path
        return
    check_writable_address(place)
    folder = outputs_folder() / key_of(place)
    local = folder / name_of(place)
    tell_address(local, place)
    with exclusive(folder):
        for left in folder.iterdir():
            if left.name != LOCK_NAME:
                disk.remove_tree(left)
        if (found := find_object(place, note)) is not None:
            if not overwrite:
                raise ArtifactError(
                    f"{shown(place)} exists already", hint="choose another name, or replace it with `overwrite=True`"
                )
            download(found, local, note)  # The block checks that it is a file of its own kind.
        yield local
        parent = place.rpartition("/")[0]
        beside = [
            each for each in sorted(folder.iterdir()) if each.is_file() and each.name not in (LOCK_NAME, local.name)
        ]
        new = [each for each in beside if not _is_there(each, join(parent, each.name), note)]
        for each in (*new, local):
            note(f"uploading {shown(join(parent, each.name))}")
            upload_file(each, join(parent, each.name), note=note)
        write_file(folder / UPLOADED_NAME, "")


def _is_there(path: Path, place: str, note: Note) -> bool:
    """Whether the object equals the file; False if there is none. Raises ArtifactError for another object."""
    content = read_small(place, note)
    if content is None:
        return False
    if content != path.read_bytes():
        raise ArtifactError(f"{shown(place)} exists, and is another file; choose another place")
    return True


def _take_over(local: Path, place: str, old: Manifest | None, kind: str, note: Note) -> None:
    """Makes `local` agree with the address: the manifest alone of what is there, else nothing but unfinished work.

    A copy on this machine with the same manifest stays whole.
    """
    content = read_small(join(place, MANIFEST_NAME), note) if old is not None else None
    own = (local / MANIFEST_NAME).read_bytes() if (local / MANIFEST_NAME).exists() else None
    if content is None or content == own:
        return
    parse_manifest(content, shown(place))
    with open_draft(local, kind) as draft:
        if local.exists():
            disk.rename(local, draft.old)
        disk.make_directory(draft.new)
        disk.write_bytes(draft.new / MANIFEST_NAME, content)
        disk.rename(draft.new, local)


def _remove(path: Path) -> None:
    if path.exists():
        disk.remove_file(path)
