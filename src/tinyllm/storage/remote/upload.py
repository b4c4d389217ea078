"""Writes files and committed directories to object storage. A directory there is whole exactly if it has its manifest.

    new       a mark that names the files, the files, the manifest, then the mark goes
    replaced  the new one is written whole as NAME.next, the manifest of NAME goes, NAME.next is copied, and goes
    removed   a mark, the manifest goes, the files go, the mark goes

So a reader finds the old or the new directory, whenever the writer is killed. Only objects that a manifest of ours or a
mark names are ever replaced or removed. Every object is checked after its upload.
"""

import hashlib
import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from tinyllm.addresses import join, shown
from tinyllm.errors import ArtifactError, DownloadError, UploadError, UsageError
from tinyllm.progress import SILENT, Note
from tinyllm.storage.manifest import MANIFEST_NAME, Manifest, parse_manifest
from tinyllm.storage.remote.drivers import file_system, repeat
from tinyllm.storage.remote.fetch import NEXT, WRONG_TRIES, find_object, read_small
from tinyllm.storage.remote.listing import objects_below
from tinyllm.storage.remote.streams import open_remote

MARK_NAME = "tinyllm-upload.json"
"""Object of a directory that is being written or removed: the names that may be there without a manifest."""
PART_BYTES = 50 * 2**20
"""Files of two parts and more are uploaded in parts."""
MOST_PARTS = 9000
READ_BYTES = 2**20
WRITING_SCHEMES = ("s3", "gs")


def check_writable_address(place: str) -> None:
    """Raises UsageError for an address where tinyllm writes nothing."""
    if not place.startswith(tuple(f"{scheme}://" for scheme in WRITING_SCHEMES)):
        raise UsageError(
            f"{shown(place)} is an address to read; outputs go to s3:// or gs://, or to a path of this machine"
        )


@dataclass(frozen=True)
class _Digests:
    """The checksums of a local file."""

    num_bytes: int
    sha256: str
    md5s: tuple[str, ...]
    """The values that a server may tell: MD5 of the file, and S3's MD5 of the MD5s of its parts."""


def upload_file(path: Path, place: str, *, sha256: str | None = None, note: Note = SILENT.note) -> None:
    """Writes a file to an address in one step, and checks what arrived.

    Raises ArtifactError if the file has not the expected `sha256`, UploadError if what arrives stays wrong.
    """
    for number in range(1, WRONG_TRIES + 1):
        part_bytes = max(PART_BYTES, -(-path.stat().st_size // MOST_PARTS))
        digests = _digest(path, part_bytes)
        if sha256 not in (None, digests.sha256):
            raise ArtifactError(f"{path} is damaged, or changed while it was uploaded: its SHA-256 is another one")
        send(lambda: file_system(place).put_file(str(path), place, chunksize=part_bytes), place, note=note)  # noqa: B023
        if _has_arrived(place, digests):
            return
        if number < WRONG_TRIES:
            note(f"{shown(place)} did not arrive as it was sent; uploading it again")
    raise UploadError(f"{shown(place)} did not arrive as it was sent {WRONG_TRIES} times; try again later")


def send(call: Callable[[], object], place: str, *, note: Note = SILENT.note) -> None:
    """Does a `call` that writes to `place`, and repeats it. Raises UsageError if its bucket does not exist."""

    def write() -> None:
        try:
            call()
        except FileNotFoundError:
            bucket = "/".join(place.split("/")[:3])
            raise UsageError(f"{shown(place)} cannot be written: there is no bucket {bucket}; make it first") from None

    repeat(write, place, note=note)


def check_can_write(place: str, note: Note = SILENT.note) -> None:
    """Writes and removes a small object below `place`, where nothing is yet: long work may follow.

    Raises the errors of `send`, such as for a bucket that does not exist, or that is only read.
    """
    names = _read_mark(place, note)
    _write_mark(place, names, note)
    if not names:
        _remove(join(place, MARK_NAME), note)


def upload_bytes(content: bytes, place: str, note: Note = SILENT.note) -> None:
    """Writes a small object in one step, and checks what arrived. Raises UploadError if that stays wrong."""
    for _ in range(WRONG_TRIES):
        send(lambda: file_system(place).pipe_file(place, content), place, note=note)
        if read_small(place, note) == content:
            return
    raise UploadError(f"{shown(place)} did not arrive as it was sent {WRONG_TRIES} times; try again later")


def upload_directory(local: Path, place: str, kind: str, note: Note = SILENT.note) -> None:
    """Writes a committed directory to an address; nothing is done if it is there already.

    Raises ArtifactError if something else is there, or if `local` changes meanwhile, and UploadError.
    """
    content = (local / MANIFEST_NAME).read_bytes()
    manifest = parse_manifest(content, str(local / MANIFEST_NAME))
    settle(place, kind, note)
    if read_small(join(place, MANIFEST_NAME), note) == content:
        return
    old = check_replaceable_address(place, kind, note)
    note(f"uploading {shown(place)}")
    if old is None:
        _upload_new(local, place, content, manifest, note)
        return
    _upload_new(local, place + NEXT, content, manifest, note)
    _move_next(place, old, manifest, content, note)


def remove_directory(place: str, kind: str, note: Note = SILENT.note) -> None:
    """Removes a committed directory, its manifest first; objects that it does not name stay."""
    content = read_small(join(place, MANIFEST_NAME), note)
    if content is not None:
        manifest = parse_manifest(content, shown(join(place, MANIFEST_NAME)))
        if manifest.kind != kind:
            raise ArtifactError(f"{shown(place)} is of the kind {manifest.kind}, not {kind}; it is not removed")
        _write_mark(place, manifest.files, note)
        _remove(join(place, MANIFEST_NAME), note)
    _remove_marked(place, note)


def settle(place: str, kind: str, note: Note = SILENT.note) -> None:
    """Finishes what a killed writer of the directory at `place` left: a whole NAME.next replaces NAME."""
    content = read_small(join(place + NEXT, MANIFEST_NAME), note)
    if content is None:
        _remove_marked(place + NEXT, note)
        return
    manifest = parse_manifest(content, shown(join(place + NEXT, MANIFEST_NAME)))
    if manifest.kind == kind:
        _move_next(place, check_replaceable_address(place, kind, note), manifest, content, note)


def check_replaceable_address(place: str, kind: str, note: Note = SILENT.note) -> Manifest | None:
    """The manifest of the directory at `place`; None if nothing is there but what an unfinished upload left.

    Raises ArtifactError for anything else.
    """
    content = read_small(join(place, MANIFEST_NAME), note)
    if content is not None:
        manifest = parse_manifest(content, shown(join(place, MANIFEST_NAME)))
        if manifest.kind != kind:
            raise ArtifactError(f"will not replace {shown(place)}: it is of the kind {manifest.kind}, not {kind}")
        return manifest
    known = {*_read_mark(place, note), MARK_NAME}
    for found in objects_below(place, note):
        name = found.place.removeprefix(join(place, "")).lstrip("/")
        if name not in known:
            raise ArtifactError(
                f"will not write to {shown(place)}: {name} is there, and tinyllm did not write it; "
                "remove it, or choose another place"
            )
    return None


def _upload_new(local: Path, place: str, content: bytes, manifest: Manifest, note: Note) -> None:
    _write_mark(place, [*manifest.files, *_read_mark(place, note)], note)
    for name, entry in manifest.files.items():
        upload_file(local / name, join(place, name), sha256=entry.sha256, note=note)
    upload_bytes(content, join(place, MANIFEST_NAME), note)
    _remove_marked(place, note, keep=manifest.files)


def _move_next(place: str, old: Manifest | None, manifest: Manifest, content: bytes, note: Note) -> None:
    """Puts the whole directory NAME.next in the place of NAME."""
    names = [*manifest.files, *(old.files if old else ()), *_read_mark(place, note)]
    _write_mark(place, names, note)
    _remove(join(place, MANIFEST_NAME), note)
    for name, entry in manifest.files.items():
        source, target = join(place + NEXT, name), join(place, name)
        repeat(lambda: file_system(place).cp_file(source, target), target, note=note)  # noqa: B023
        found = find_object(target, note)
        if found is None or found.num_bytes != entry.bytes:
            raise UploadError(f"{shown(target)} was not copied as it is; try again later")
    upload_bytes(content, join(place, MANIFEST_NAME), note)
    _remove_marked(place, note, keep=manifest.files)
    remove_directory(place + NEXT, manifest.kind, note)


def _write_mark(place: str, names: Iterable[str], note: Note) -> None:
    files = sorted(set(names))
    upload_bytes(json.dumps({"tinyllm": "upload", "files": files}).encode(), join(place, MARK_NAME), note)


def _read_mark(place: str, note: Note) -> list[str]:
    """The names in the mark of an unfinished upload or removal; empty without a mark."""
    content = read_small(join(place, MARK_NAME), note)
    if content is None:
        return []
    try:
        mark = json.loads(content)
        names = mark["files"] if mark["tinyllm"] == "upload" else None
    except (ValueError, TypeError, KeyError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ArtifactError(
            f"{shown(join(place, MARK_NAME))} is not a mark of tinyllm; remove it, or choose another place"
        )
    return names


def _remove_marked(place: str, note: Note, keep: Container[str] = ()) -> None:
    """Removes the files that the mark names, without those in `keep`, and then the mark."""
    if read_small(join(place, MARK_NAME), note) is None:
        return
    for name in _read_mark(place, note):
        if name not in keep:
            _remove(join(place, name), note)
    _remove(join(place, MARK_NAME), note)


def _remove(place: str, note: Note) -> None:
    def remove() -> None:
        try:
            file_system(place).rm_file(place)
        except FileNotFoundError:
            return  # an earlier try removed it

    repeat(remove, place, note=note)


def _has_arrived(place: str, digests: _Digests) -> bool:
    """Whether the object has the file's bytes: by the checksum that the server tells, else by reading it."""
    found = find_object(place)
    if found is None or found.num_bytes != digests.num_bytes:
        return False
    told = found.version.strip('"')
    if told in digests.md5s or _decode_md5(told) in digests.md5s:
        return True
    # Encrypted objects have another ETag.
    digest = hashlib.sha256()
    try:
        with open_remote(place) as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
    except DownloadError:
        return False
    return digest.hexdigest() == digests.sha256


def _decode_md5(text: str) -> str:
    """An MD5 in base 64, as Google tells it, in hexadecimal."""
    try:
        return b64decode(text, validate=True).hex()
    except (Base64Error, ValueError):
        return ""


def _digest(path: Path, part_bytes: int) -> _Digests:
    sha256, whole, part = hashlib.sha256(), hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
    parts, num_bytes, in_part = [], 0, 0
    with path.open("rb") as file:
        while piece := file.read(min(READ_BYTES, part_bytes - in_part)):
            for digest in (sha256, whole, part):
                digest.update(piece)
            num_bytes += len(piece)
            in_part += len(piece)
            if in_part == part_bytes:
                parts.append(part.digest())
                part, in_part = hashlib.md5(usedforsecurity=False), 0
    if in_part:
        parts.append(part.digest())
    part_digest = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return _Digests(num_bytes, sha256.hexdigest(), (whole.hexdigest(), f"{part_digest}-{len(parts)}"))
