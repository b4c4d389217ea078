"""Reads the regular files of a tar archive as a stream, without extracting or seeking.

The reader supports POSIX ustar, pax, and GNU long names. Python's tarfile is not used: it ends silently at a damaged
header, keeps every member in memory, and reads headers of any claimed size. Member names are labels and never used as
paths, links and devices are skipped, and memory is one chunk.
"""

import re
from collections.abc import Iterator

from tinyllm.corpus.sources import printable
from tinyllm.corpus.streams import CHUNK_BYTES, ByteStream
from tinyllm.errors import FormatError

_BLOCK_BYTES = 512
_HEADER_LIMIT_BYTES = 2**20
_NAME_LIMIT_BYTES = 4096
_DRAIN_LIMIT_BYTES = 16 * CHUNK_BYTES
_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]{1,1000})=")


class Member:
    """A file in the archive; it can be read until the next member is requested."""

    def __init__(self, archive: ByteStream, name: str, num_bytes: int) -> None:
        self.name = name
        self._archive = archive
        self._num_bytes_left = num_bytes
        self._num_bytes_padding = -num_bytes % _BLOCK_BYTES

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """Up to `size` bytes; empty at the member's end. Raises FormatError if the archive is cut off."""
        content = self._archive.read(min(size, self._num_bytes_left))
        if not content and min(size, self._num_bytes_left):
            raise _cut_off(self._archive.name)
        self._num_bytes_left -= len(content)
        return content

    def skip(self) -> None:
        """Skips the rest of the member and its padding."""
        self._num_bytes_left += self._num_bytes_padding
        self._num_bytes_padding = 0
        while self._num_bytes_left:
            self.read()


def read_members(archive: ByteStream) -> Iterator[Member]:
    """The regular files in the archive's order. Raises FormatError if a header is damaged or the archive is cut off."""
    long_name: str | None = None
    pax: dict[bytes, bytes] = {}
    while header := _read_header(archive):
        kind = header[156:157]
        size = _number(pax.get(b"size"), 10, archive) if b"size" in pax else _number(header[124:136], 8, archive)
        if kind in (b"L", b"x"):
            content = _read_extension(archive, size)
            if kind == b"L":
                long_name = _text(content)
            else:
                pax = _pax_records(content, archive)
            continue
        member = Member(archive, long_name or _text(pax.get(b"path", b"")) or _name(header), size)
        if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in pax):
            raise FormatError(f"{archive.name}: {member.name} is stored sparse; pack the archive without sparse files")
        if kind in _REGULAR and not member.name.endswith("/"):
            yield member
        if kind not in _WITHOUT_DATA:
            member.skip()
        if kind not in (b"K", b"g"):
            long_name, pax = None, {}
    _drain(archive)


def _read_header(archive: ByteStream) -> bytes:
    """The next header block; empty at the end mark, a block of zeros."""
    header = _read_exactly(archive, _BLOCK_BYTES)
    if not any(header):
        return b""
    # The checksum counts its own field as eight spaces.
    expected = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _number(header[148:156], 8, archive) != expected:
        raise _damaged(archive, "a header's checksum is wrong")
    return header


def _read_extension(archive: ByteStream, size: int) -> bytes:
    """The content of an extension header, which describes the next header: a long name, or pax records."""
    if size > _HEADER_LIMIT_BYTES:
        raise _damaged(archive, f"a header of {size} bytes, more than {_HEADER_LIMIT_BYTES}")
    return _read_exactly(archive, size + -size % _BLOCK_BYTES)[:size]


def _read_exactly(archive: ByteStream, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = archive.read(size - len(content))
        if not more:
            raise _cut_off(archive.name)
        content += more
    return content


def _pax_records(content: bytes, archive: ByteStream) -> dict[bytes, bytes]:
    """Parses records such as `30 path=a/long/name.json`; 30 is the length of the record with its newline."""
    records = {}
    position = 0
    while position < len(content):
        match = _PAX_RECORD.match(content, position)
        end = position + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(content):
            raise _damaged(archive, "an extended header that is not of the form LENGTH KEY=VALUE")
        records[match[2]] = content[match.end() : end - 1]
        position = end
    return records


def _number(field: bytes | None, base: int, archive: ByteStream) -> int:
    field = field or b""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")  # GNU's form for sizes of 8 GiB and more
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not re.fullmatch(rb"[0-7]{1,12}" if base == 8 else rb"[0-9]{1,20}", digits):
        raise _damaged(archive, f"a header says {field!r} where a number belongs")
    return int(digits, base)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    """A name for messages. An overlong name keeps its end, which includes the ending."""
    return printable(field.partition(b"\0")[0][-_NAME_LIMIT_BYTES:].decode(errors="replace"))


def _drain(archive: ByteStream) -> None:
    """Reads past the end mark, up to a limit, so that a compressed archive's checksum is verified."""
    num_bytes = 0
    while num_bytes < _DRAIN_LIMIT_BYTES and (content := archive.read()):
        num_bytes += len(content)


def _cut_off(name: str) -> FormatError:
    return FormatError(f"{name} is cut off: the archive ends before its end mark; get it again")


def _damaged(archive: ByteStream, what: str) -> FormatError:
    return FormatError(f"{archive.name} is not a tar archive, or is damaged: {what}; get it again")
