"""Reads the regular files of a zip archive without extracting them; memory is one chunk.

Python's zipfile is not used: it keeps an entry in memory for each claimed member. It also reads overlapping members, so
a few kilobytes can claim terabytes. This reader walks the central directory entry by entry. It refuses members that are
together larger than the file, and checks each member's size and CRC-32.
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from tinyllm.corpus.sources import printable, unreadable
from tinyllm.corpus.streams import CHUNK_BYTES
from tinyllm.errors import FormatError

_END = struct.Struct("<4s4H2LH")
_END64_PLACE = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_COMMENT_LIMIT_BYTES = 2**16
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8_NAME = 0x1, 0x800
_UNIX = 3
_IN_ZIP64 = 2**32 - 1
"""Marks a number that zip64 stores in the extra field."""


@dataclass(frozen=True)
class _Entry:
    """The central directory's description of a member."""

    name: str
    is_regular: bool
    method: int
    crc: int
    packed_bytes: int
    num_bytes: int
    offset: int


class Member:
    """A file in the archive; it can be read until the next member is requested."""

    def __init__(self, archive: "_Archive", entry: _Entry, start: int) -> None:
        self.name = entry.name
        self._archive = archive
        self._entry = entry
        self._position = start
        self._packed_left = entry.packed_bytes
        self._unpacked_left = entry.num_bytes
        self._crc = 0
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == _DEFLATED else None

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """Up to `size` bytes; empty at the member's end. Raises FormatError if the member is damaged."""
        content = self._read_packed(size) if self._inflater is None else self._inflate(self._inflater, size)
        self._crc = zlib.crc32(content, self._crc)
        self._unpacked_left -= len(content)
        if self._unpacked_left < 0 or (size and not content and self._unpacked_left):
            raise self._damaged("its size is not the one in the archive's directory")
        if not self._unpacked_left and self._crc != self._entry.crc:
            raise self._damaged("its CRC-32 is wrong")
        return content

    def _inflate(self, inflater: "zlib._Decompress", size: int) -> bytes:
        content = b""
        while not content and not inflater.eof:
            packed = inflater.unconsumed_tail or self._read_packed(CHUNK_BYTES)
            try:
                # The inflater may consume all input while it still holds some output, at most one match.
                content = inflater.decompress(packed, size) if packed else inflater.flush()
            except zlib.error as error:
                raise self._damaged(str(error)) from None
            if not packed and not content:
                raise self._damaged("its compressed data ends too early")
        return content

    def _read_packed(self, size: int) -> bytes:
        content = self._archive.read_at(self._position, min(size, self._packed_left))
        self._position += len(content)
        self._packed_left -= len(content)
        return content

    def _damaged(self, what: str) -> FormatError:
        return FormatError(f"{self._archive.name}:{self.name} is damaged: {what}; get the archive again")


def read_members(file: BinaryIO, name: str) -> Iterator[Member]:
    """The regular files in the order of the archive's directory.

    `file` must be seekable; `name` is its name in messages. Raises FormatError for an incomplete zip archive, and for
    members that are encrypted, overlap, or use another method than deflate.
    """
    archive = _Archive(file, name)
    num_bytes = 0
    for entry in _read_directory(archive):
        if not entry.is_regular:
            continue
        num_bytes += _LOCAL.size + entry.packed_bytes
        if num_bytes > archive.num_bytes:
            raise archive.damaged("its members overlap")
        yield Member(archive, entry, _data_start(archive, entry))


class _Archive:
    """A seekable archive file whose reads return the requested size or raise."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        try:
            self.num_bytes = file.seek(0, 2)
        except OSError as error:
            raise unreadable(name, error) from None

    def read_at(self, position: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises FormatError if the file ends before, InputError if the disk refuses."""
        if not 0 <= position <= self.num_bytes - size:
            raise self.damaged(f"it points to byte {position + size}, but has {self.num_bytes}")
        try:
            self._file.seek(position)
            content = self._file.read(size)
        except OSError as error:
            raise unreadable(self.name, error) from None
        if len(content) < size:
            raise self.damaged("it became shorter while it was read")
        return content

    def damaged(self, what: str) -> FormatError:
        """An error for this archive; `what` is the reason."""
        return FormatError(f"{self.name} is not a whole zip archive: {what}; get it again")


def _read_directory(archive: _Archive) -> Iterator[_Entry]:
    position, end, shift = _find_directory(archive)
    while position < end:
        fields = _ENTRY.unpack(archive.read_at(position, _ENTRY.size))
        signature, made_by, _, flags, method, _, _, crc, packed, unpacked, *lengths, _, _, mode, offset = fields
        name_bytes, extra_bytes, comment_bytes = lengths
        if signature != b"PK\1\2":
            raise archive.damaged("its directory is damaged")
        content = archive.read_at(position + _ENTRY.size, name_bytes + extra_bytes)
        position += _ENTRY.size + name_bytes + extra_bytes + comment_bytes
        name = printable(content[:name_bytes].decode("utf-8" if flags & _UTF8_NAME else "cp437", errors="replace"))
        unpacked, packed, offset = _widen([unpacked, packed, offset], content[name_bytes:])
        kind = stat.S_IFMT(mode >> 16) if made_by >> 8 == _UNIX else 0
        is_regular = kind in (0, stat.S_IFREG) and not name.endswith("/")
        if is_regular and flags & _ENCRYPTED:
            raise FormatError(f"{archive.name}: {name} is encrypted; unpack the archive and name its folder")
        if is_regular and method not in (_STORED, _DEFLATED):
            raise FormatError(
                f"{archive.name}: {name} is compressed by method {method}, not by deflate; "
                "unpack the archive and name its folder"
            )
        yield _Entry(name, is_regular, method, crc, packed, unpacked, offset + shift)


def _find_directory(archive: _Archive) -> tuple[int, int, int]:
    """Start and end of the directory, and the number of bytes before the archive, as in a self-extracting one."""
    tail_bytes = min(archive.num_bytes, _END.size + _COMMENT_LIMIT_BYTES)
    tail_start = archive.num_bytes - tail_bytes
    tail = archive.read_at(tail_start, tail_bytes)
    place = tail.rfind(b"PK\5\6", 0, max(0, tail_bytes - _END.size + 4))
    if place < 0:
        raise archive.damaged("its end mark is missing")
    end = tail_start + place
    _, disk, first_disk, _, _, size, offset, _ = _END.unpack(tail[place : place + _END.size])
    if end >= _END64_PLACE.size:
        signature, _, end64, _ = _END64_PLACE.unpack(archive.read_at(end - _END64_PLACE.size, _END64_PLACE.size))
        if signature == b"PK\6\7":
            end = end64
            signature, _, _, _, disk, first_disk, _, _, size, offset = _END64.unpack(
                archive.read_at(end64, _END64.size)
            )
            if signature != b"PK\6\6":
                raise archive.damaged("its zip64 end mark is missing")
    if disk or first_disk:
        raise archive.damaged("it is one of several parts")
    shift = end - size - offset
    if shift < 0:
        raise archive.damaged("its directory does not lie before its end")
    return offset + shift, end, shift


def _widen(numbers: list[int], extra: bytes) -> list[int]:
    """Sizes and offset, with those too large for 32 bits replaced from the zip64 extra field, in this order."""
    position = 0
    while position + 4 <= len(extra) and _IN_ZIP64 in numbers:
        kind, size = struct.unpack_from("<2H", extra, position)
        field = extra[position + 4 : position + 4 + size]
        if kind == 1:
            wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            return [next(wide, _IN_ZIP64) if number == _IN_ZIP64 else number for number in numbers]
        position += 4 + size
    return numbers


def _data_start(archive: _Archive, entry: _Entry) -> int:
    """The offset of the member's data, after its local header, whose lengths may differ from the directory's."""
    signature, *_, name_bytes, extra_bytes = _LOCAL.unpack(archive.read_at(entry.offset, _LOCAL.size))
    if signature != b"PK\3\4":
        raise archive.damaged(f"the header of {entry.name} is missing")
    return entry.offset + _LOCAL.size + int(name_bytes) + int(extra_bytes)
