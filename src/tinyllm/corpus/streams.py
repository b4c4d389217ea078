"""Reads files as bytes, decompresses them, and decodes bytes to text, one chunk at a time.

Every fault in a file's bytes becomes an error here: unreadable, damaged, cut off, not UTF-8. The modules that call
this one interpret the text.
"""

import bz2
import codecs
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from tinyllm.addresses import address
from tinyllm.corpus.formats import Compression
from tinyllm.corpus.sources import STANDARD_INPUT, printable, unreadable
from tinyllm.errors import FormatError, InputError
from tinyllm.storage.remote.streams import open_remote
from tinyllm.text_input import BYTE_ORDER_MARK, not_utf8, standard_input

CHUNK_BYTES = 2**20
XZ_LIMIT_BYTES = 2**28
"""Memory limit for decompressing an xz file; files made by `xz -9` need 65 MiB."""


class Readable(Protocol):
    """Anything to read bytes from: an open file, a decompressor, a member of an archive."""

    def read(self, size: int = -1, /) -> bytes: ...


class ByteStream:
    """A file that is read once from start to end, with its name for messages.

    `damage` lists the exceptions that the layers below raise for damaged content.
    """

    def __init__(self, name: str, file: Readable, damage: tuple[type[Exception], ...] = ()) -> None:
        self.name = name
        self._file = file
        self._damage = damage

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Up to `size` bytes, fewer only at the end. Raises FormatError for damage, InputError if the disk refuses."""
        try:
            return self._file.read(size)
        except EOFError:
            raise FormatError(f"{self.name} is cut off: its compressed data ends too early; get it again") from None
        except self._damage as error:
            if "Memory usage limit" in str(error):
                limit = f"{XZ_LIMIT_BYTES // 2**20} MiB"
                raise FormatError(f"{self.name} needs more than {limit} to unpack; pack it again by xz -9") from None
            raise FormatError(f"{self.name} is damaged: {error}; get it again") from None
        except OSError as error:
            if error.errno is None:
                raise FormatError(f"{self.name} is damaged: {error}; get it again") from None
            raise unreadable(self.name, error) from None


class Decompressor(Protocol):
    """The common interface of bz2 and lzma: one compressed stream, decompressed piece by piece."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Decompressed:
    """The content of concatenated compressed streams in one file, as `bzip2` and `xz` read them.

    Python's readers take garbage after a stream for the end of the file. Here garbage is damage: each stream must be
    complete, and only zeros may follow the last one, because xz pads files with them. Memory is one chunk plus the
    decompressor's own.
    """

    def __init__(self, file: Readable, make: Callable[[], Decompressor]) -> None:
        self._file = file
        self._make = make
        self._decompressor = make()
        self._input = b""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end. Raises EOFError if a stream is cut off."""
        while size:
            if self._decompressor.eof and not self._begin_next_stream():
                return b""
            if not self._input and self._decompressor.needs_input:
                self._input = self._file.read(CHUNK_BYTES)
                if not self._input:
                    raise EOFError
            content = self._decompressor.decompress(self._input, size)
            self._input = b""
            if content:
                return content
        return b""

    def _begin_next_stream(self) -> bool:
        """Starts the next compressed stream; False if there is none."""
        rest = self._decompressor.unused_data.lstrip(b"\0")
        while not rest:
            chunk = self._file.read(CHUNK_BYTES)
            if not chunk:
                return False
            rest = chunk.lstrip(b"\0")
        self._decompressor, self._input = self._make(), rest
        return True


@contextmanager
def open_bytes(path: Path, compression: Compression = "none") -> Iterator[ByteStream]:
    """Opens a file or standard input as a stream of decompressed bytes."""
    if path == STANDARD_INPUT:
        yield ByteStream("standard input", standard_input())
        return
    with open_file(path) as file:
        yield decompress(printable(path), file, compression)


def open_file(path: Path) -> BinaryIO:
    """The opened file, on this machine or at an address. Raises InputError if the system refuses to open it."""
    place = address(path)
    if place is not None:
        return open_remote(place)
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def decompress(name: str, file: Readable, compression: Compression) -> ByteStream:
    """The stream of decompressed bytes of `file`; the caller closes `file`."""
    # The decompressors only call `read`, although their type hints ask for more.
    match compression:
        case "none":
            return ByteStream(name, file)
        case "gzip":
            return ByteStream(name, gzip.open(cast(BinaryIO, file)), (zlib.error, gzip.BadGzipFile))
        case "bzip2":
            # bz2 reports damage as an OSError without an error number.
            return ByteStream(name, Decompressed(file, bz2.BZ2Decompressor), ())
        case "xz":
            return ByteStream(name, Decompressed(file, _make_xz), (lzma.LZMAError,))
        case "zstd":
            if sys.version_info >= (3, 14):
                from compression import zstd
            else:
                from backports import zstd
            return ByteStream(name, zstd.open(cast(BinaryIO, file)), (zstd.ZstdError,))


def _make_xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=XZ_LIMIT_BYTES)


def decode_text(stream: ByteStream, *, refuse_binary: bool = False) -> Iterator[str]:
    """The stream decoded as strict UTF-8, in pieces, without a byte order mark at its start.

    Raises InputError with the file, the line (from 1) and the byte (from 0) of the first invalid byte. With
    `refuse_binary`, a NUL is an error too, because text has none.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    num_lines, num_bytes = 0, 0
    at_start = True
    while True:
        chunk = stream.read()
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            # The decoder prepends the bytes of a character that the last chunk left unfinished.
            offset = num_bytes - (len(error.object) - len(chunk)) + error.start
            line = num_lines + error.object.count(b"\n", 0, error.start) + 1
            raise not_utf8(stream.name, line, offset, error) from None
        if refuse_binary and b"\0" in chunk:
            place = chunk.index(b"\0")
            line = num_lines + chunk.count(b"\n", 0, place) + 1
            raise InputError(f"{stream.name} is not text: line {line}, byte {num_bytes + place} is NUL; leave it out")
        if text:
            yield text.removeprefix(BYTE_ORDER_MARK) if at_start else text
            at_start = False
        if not chunk:
            return
        num_lines += chunk.count(b"\n")
        num_bytes += len(chunk)


def unify_newlines(pieces: Iterator[str]) -> Iterator[str]:
    r"""The same text with `\r\n` and `\r` as `\n`, like Python's text files; a model need not learn both."""
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode("", final=True)
