"""Bytes out of files, decompressed on the way, and text out of bytes: one chunk at a time, never a whole file.

Everything that can be wrong with a file's bytes is said here, as one of our errors: unreadable, damaged, cut off, not
UTF-8. What the text means is for the modules below.
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

from tinyllm.corpus.formats import Compression
from tinyllm.corpus.sources import STANDARD_INPUT, printable, unreadable
from tinyllm.errors import FormatError, InputError
from tinyllm.text_input import BYTE_ORDER_MARK, not_utf8, standard_input

CHUNK_BYTES = 2**20
XZ_LIMIT_BYTES = 2**28
"""Memory that an xz file may ask for; `xz -9` makes files that need 65 MiB."""


class Readable(Protocol):
    """What a stream is made from: an open file, a decompressor, a member of an archive."""

    def read(self, size: int = -1, /) -> bytes: ...


class ByteStream:
    """A file to read once from its beginning to its end, with the name that messages give it.

    `damage` are the exceptions by which the layers underneath say that the content is not what it should be.
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
    """What bz2 and lzma have in common: one compressed stream, decompressed piece by piece."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Decompressed:
    """The content of compressed streams that follow each other in one file, as `bzip2` and `xz` read them.

    Python's own readers take garbage behind a stream for the end of the file. Here it is damage: each stream must be
    whole, and only zeros, in which xz pads files, may follow the last one. Memory is one chunk and the decompressor's.
    """

    def __init__(self, file: Readable, make: Callable[[], Decompressor]) -> None:
        self._file = file
        self._make = make
        self._decompressor = make()
        self._input = b""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end. Raises EOFError where a stream is cut off."""
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
        """Whether there is another stream."""
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
    """Opens a file, or standard input, as the stream of its decompressed bytes."""
    if path == STANDARD_INPUT:
        yield ByteStream("standard input", standard_input())
        return
    with open_file(path) as file:
        yield decompress(printable(path), file, compression)


def open_file(path: Path) -> BinaryIO:
    """The opened file. Raises InputError where the system refuses."""
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def decompress(name: str, file: Readable, compression: Compression) -> ByteStream:
    """The stream of what is inside `file`; closing `file` stays with the caller."""
    # The decompressors ask of a file only that it can be read, though their types say more.
    match compression:
        case "none":
            return ByteStream(name, file)
        case "gzip":
            return ByteStream(name, gzip.open(cast(BinaryIO, file)), (zlib.error, gzip.BadGzipFile))
        case "bzip2":
            # bz2 says that its data is damaged by an OSError, which has no number then.
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
    """The stream as strict UTF-8, in pieces; a byte order mark at its beginning is dropped.

    Raises InputError that names the file, the line (from 1) and the byte (from 0) of what is not UTF-8, and
    with `refuse_binary` of the first NUL, which text has none of.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    num_lines, num_bytes = 0, 0
    at_start = True
    while True:
        chunk = stream.read()
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            # The decoder puts the bytes of a character that the last chunk left unfinished before this chunk.
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
    r"""The same text with `\r\n` and `\r` as `\n`, as Python reads text files: a model need not learn both."""
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode("", final=True)
