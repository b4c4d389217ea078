"""Lists the objects that an address names: one object, all below a folder, or those that match a pattern."""

import glob
from pathlib import PurePosixPath

from tinyllm.addresses import join, scheme_of, shown
from tinyllm.errors import InputError
from tinyllm.progress import SILENT, Note
from tinyllm.storage.remote.drivers import file_system, repeat
from tinyllm.storage.remote.fetch import RemoteObject, as_object, find_object


def list_objects(place: str, note: Note = SILENT.note) -> tuple[list[RemoteObject], bool]:
    """The objects at an address, sorted, and whether it names them itself: as one object or by a pattern.

    The web has no folders and no patterns. Raises InputError if nothing is there, and the errors of `repeat`.
    """
    is_web = scheme_of(place).startswith("http")
    if glob.has_magic(place) and not is_web:
        found = sorted(_find(place, note), key=lambda each: each.place)
        if not found:
            raise InputError(f"the pattern {place} matches no object")
        return found, True
    if (single := find_object(place, note)) is not None:
        return [single], True
    found = [] if is_web else sorted(_find(place, note), key=lambda each: each.place)
    if not found:
        raise InputError(f"{shown(place)} does not exist")
    return found, False


def version_of(place: str) -> str:
    """Size and version of an object as one text. Raises InputError if it does not exist, or has no known version."""
    found = _find_one(place)
    if not found.version:
        raise InputError(
            f"{shown(place)} has no version that its server tells, so a change of it could not be noticed; "
            "download it, and name the file"
        )
    return f"{found.num_bytes} {found.version}"


def size_of(place: str) -> int:
    """Bytes of an object. Raises InputError if it does not exist."""
    return _find_one(place).num_bytes


def _find_one(place: str) -> RemoteObject:
    found = find_object(place)
    if found is None:
        raise InputError(f"{shown(place)} does not exist")
    return found


def objects_below(place: str, note: Note = SILENT.note) -> list[RemoteObject]:
    """The objects below a folder at any depth, without hidden ones; empty if there are none."""
    return sorted(_find(place, note), key=lambda each: each.place)


def _find(place: str, note: Note) -> list[RemoteObject]:
    """Objects that match a pattern, or that are below a folder and not hidden."""
    scheme = scheme_of(place)

    def find() -> list[RemoteObject]:
        driver = file_system(place)
        try:
            list_all = driver.glob if glob.has_magic(place) else driver.find
            listing = list_all(place, detail=True)
        except FileNotFoundError:
            return []
        found = [as_object(f"{scheme}://{name}", info) for name, info in listing.items()]
        return [each for each in found if each is not None and not _is_hidden(each.place, place)]

    return repeat(find, place, note=note)


def _is_hidden(found: str, place: str) -> bool:
    """Whether a name below a folder begins with a dot; a pattern names what it matches."""
    if glob.has_magic(place):
        return False
    return any(part.startswith(".") for part in PurePosixPath(found.removeprefix(join(place, ""))).parts)
