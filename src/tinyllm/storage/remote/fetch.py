"""Brings a file or a directory at an address into the cache, and checks what came.

A directory that tinyllm committed is read by its manifest, and every file must have its size and SHA-256. Another
directory, such as a model of Hugging Face, is read by its listing, and its sizes count. A wrong file is fetched again.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.addresses import join, name_of, opened_address, scheme_of, shown
from tinyllm.errors import ArtifactError, DownloadError, InputError
from tinyllm.progress import SILENT, Note
from tinyllm.storage import disk
from tinyllm.storage.commit import write_stamps
from tinyllm.storage.manifest import MANIFEST_LIMIT_BYTES, MANIFEST_NAME, Manifest, parse_manifest
from tinyllm.storage.remote import cache
from tinyllm.storage.remote.drivers import file_system, hidden_cause, is_refusal, repeat
from tinyllm.storage.remote.streams import open_remote

PIECE_BYTES = 2**22
WRONG_TRIES = 3
"""Most tries to fetch a file with a wrong checksum."""
NEXT = ".next"
"""Ending of a directory that replaces another: it is whole before the other one is changed."""
ENDINGS = (".json", ".safetensors", ".model", ".txt", ".jinja", ".bin", ".idx")
"""Files of a directory without a manifest that are fetched: of models, tokenizers and shards of llama2.c."""


@dataclass(frozen=True)
class RemoteObject:
    """One object: its address, and what its server tells about the version."""

    place: str
    num_bytes: int
    version: str
    """ETag, checksum or time of the last change; empty if the server tells none."""
    sha256: str | None = None


def fetch(path: str | Path, *, below: tuple[str, ...] = (), note: Note = SILENT.note) -> Path:
    """`path`, or the local copy of a file or directory at the address `path`.

    `below` names folders in which the directory may be instead, such as a run's `model`. `note` gets one line before a
    fetch and about setbacks. Raises InputError for an address with nothing to read, and DownloadError if the network or
    the content fails repeatedly. Raises ArtifactError for a damaged manifest or a full disk.
    """
    place = opened_address(path)
    if place is None:
        return Path(path)
    candidates = [join(place, name) for name in ("", *below)]
    for candidate in candidates:
        if (found := find_committed(candidate, note)) is not None:
            return _fetch_committed(*found, note)
    if (found_file := find_object(place, note)) is not None:
        return _fetch_files(place, [found_file], None, note)
    for candidate in candidates:
        if files := _list_files(candidate, note):
            return _fetch_files(candidate, files, name_of(candidate), note)
    raise InputError(f"{shown(place)} does not exist, or holds no file that ends in {', '.join(ENDINGS)}")


def find_committed(place: str, note: Note = SILENT.note) -> tuple[str, bytes, Manifest] | None:
    """Address, text and content of the manifest of a committed directory, or of the one that replaces it; else None."""
    if "?" in place:
        return None  # A signed address is that of one file.
    for candidate in (place, place + NEXT):
        content = read_small(join(candidate, MANIFEST_NAME), note)
        if content is not None:
            return candidate, *_read_manifest(candidate, content, note)
    return None


def read_small(place: str, note: Note = SILENT.note) -> bytes | None:
    """The content of a small object; None if it does not exist. Raises ArtifactError above 64 MiB."""

    def read() -> bytes | None:
        try:
            with file_system(place).open(place, "rb") as file:
                return bytes(file.read(MANIFEST_LIMIT_BYTES + 1))
        except FileNotFoundError as error:
            # Web servers may also refuse what does not exist.
            if (cause := hidden_cause(error)) is not None and not is_refusal(cause):
                raise cause from None
            return None

    content = repeat(read, place, note=note)
    if content is not None and len(content) > MANIFEST_LIMIT_BYTES:
        raise ArtifactError(f"{shown(place)} is larger than {MANIFEST_LIMIT_BYTES} bytes; it is damaged")
    return content


def find_object(place: str, note: Note = SILENT.note) -> RemoteObject | None:
    """The object at an address; None if there is none, or a folder."""

    def look() -> RemoteObject | None:
        try:
            return as_object(place, file_system(place).info(place))
        except FileNotFoundError as error:
            if (cause := hidden_cause(error)) is not None:
                raise cause from None
            return None

    return repeat(look, place, note=note)


def as_object(place: str, info: dict[str, Any]) -> RemoteObject | None:
    """The object that a driver describes; None for a folder."""
    if info.get("type") != "file":
        return None
    version = info.get("md5Hash") or info.get("ETag") or info.get("etag") or info.get("blob_id") or info.get("mtime")
    lfs = info.get("lfs") or {}
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    return RemoteObject(place, int(info.get("size") or 0), str(version or info.get("LastModified") or ""), sha256)


def fetch_directory(place: str, manifest: Manifest, content: bytes, target: Path, note: Note = SILENT.note) -> None:
    """Fills the new folder `target` with a committed directory: its files, checked, and its manifest last."""
    disk.make_directory(target)
    for name, entry in manifest.files.items():
        download(RemoteObject(join(place, name), entry.bytes, "", entry.sha256), target / name, note)
        disk.sync(target / name)
    disk.write_bytes(target / MANIFEST_NAME, content)
    disk.sync(target / MANIFEST_NAME)
    disk.sync_directory(target)


def download(found: RemoteObject, path: Path, note: Note = SILENT.note) -> None:
    """Writes an object to the new file `path`. Raises DownloadError if its size or SHA-256 stays wrong."""
    for number in range(1, WRONG_TRIES + 1):
        digest, counter = hashlib.sha256(), [0]
        disk.write_pieces(path, _pieces(found.place, digest, counter, note))
        right_size = not found.num_bytes or counter[0] == found.num_bytes
        if right_size and found.sha256 in (None, digest.hexdigest()):
            return
        wrong = "its SHA-256 is wrong" if right_size else f"{counter[0]} bytes came instead of {found.num_bytes}"
        if number < WRONG_TRIES:
            note(f"{shown(found.place)}: {wrong}; fetching it again")
    raise DownloadError(f"{shown(found.place)} is damaged, or damaged on its way {WRONG_TRIES} times: {wrong}")


def _pieces(place: str, digest: Any, counter: list[int], note: Note) -> Iterator[bytes]:
    with open_remote(place, note) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            counter[0] += len(piece)
            yield piece


def _read_manifest(place: str, content: bytes, note: Note) -> tuple[bytes, Manifest]:
    """A manifest's text and content, read again if its checksum is wrong. Raises ArtifactError if it stays wrong."""
    where = shown(join(place, MANIFEST_NAME))
    for number in range(WRONG_TRIES):
        try:
            manifest = parse_manifest(content, where)
            break
        except ArtifactError:
            again = read_small(join(place, MANIFEST_NAME), note)
            if number + 1 == WRONG_TRIES or again is None:
                raise
            content = again
    for name in manifest.files:
        if Path(name).name != name:
            raise ArtifactError(f"{where} names {name!r}; a manifest names files of its own directory only")
    return content, manifest


def _fetch_committed(place: str, content: bytes, manifest: Manifest, note: Note) -> Path:
    num_bytes = sum(entry.bytes for entry in manifest.files.values())

    def fetch_into(target: Path) -> None:
        note(f"fetching {shown(place)}: {len(manifest.files)} files, {num_bytes:,} bytes")
        fetch_directory(place, manifest, content, target, note)
        # Consumers then need not hash the files again.
        write_stamps(target, manifest)

    key = cache.key_of(place, hashlib.sha256(content).hexdigest())
    name = name_of(place).removesuffix(NEXT)
    return cache.find_or_fetch(key, place, name, num_bytes, fetch_into, note)


def _fetch_files(place: str, files: list[RemoteObject], folder: str | None, note: Note) -> Path:
    """Files in a `folder`, or one file for None, by what their server tells about them."""
    num_bytes = sum(found.num_bytes for found in files)

    def fetch_into(target: Path) -> None:
        note(f"fetching {shown(place)}: {num_bytes:,} bytes")
        if folder is not None:
            disk.make_directory(target)
        for found in files:
            download(found, target if folder is None else target / name_of(found.place), note)

    key = cache.key_of(place, *((found.place, found.num_bytes, found.version) for found in files))
    return cache.find_or_fetch(key, place, folder or name_of(place), num_bytes, fetch_into, note)


def _list_files(place: str, note: Note) -> list[RemoteObject]:
    """The objects directly below an address that `ENDINGS` names; empty where a server lists none."""
    if scheme_of(place).startswith("http"):
        return []

    def list_objects() -> list[RemoteObject]:
        try:
            listing = file_system(place).ls(place, detail=True)
        except FileNotFoundError:
            return []
        found = [as_object(join(place, name_of(f"{place}/{info['name']}")), info) for info in listing]
        return [each for each in found if each is not None and each.place.endswith(ENDINGS)]

    return sorted(repeat(list_objects, place, note=note), key=lambda found: found.place)
