"""Bytes out of files, decompressed on the way, and text out of bytes: one chunk at a time, never a whole file.

Everything that can be wrong with a file's bytes is said here, as one of our errors: unreadable, damaged, cut off, not
UTF-8. What the text means is for the modules below.
"""

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from tinyllm.corpus.formats import Compression
from tinyllm.corpus.sources import STANDARD_INPUT, printable, unreadable
from tinyllm.errors import FormatError
from tinyllm.text_input import BYTE_ORDER_MARK, not_utf8, standard_input

CHUNK_BYTES = 2**20


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
            raise FormatError(f"{self.name} is damaged: {error}; get it again") from None
        except OSError as error:
            raise unreadable(self.name, error) from None


@contextmanager
def open_bytes(path: Path, compression: Compression = "none") -> Iterator[ByteStream]:
    """Opens a file, or standard input, as the stream of its decompressed bytes."""
    name = printable(path)
    if path == STANDARD_INPUT:
        yield ByteStream("standard input", standard_input())
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(name, error) from None
    with file:
        yield decompress(name, file, compression)


def decompress(name: str, file: Readable, compression: Compression) -> ByteStream:
    """The stream of what is inside `file`; closing `file` stays with the caller."""
    # The decompressors ask of a file only that it can be read, though their types say more.
    match compression:
        case "none":
            return ByteStream(name, file)
        case "gzip":
            return ByteStream(name, gzip.open(cast(BinaryIO, file)), (zlib.error, gzip.BadGzipFile))
        case "zstd":
            if sys.version_info >= (3, 14):
                from compression import zstd
            else:
                from backports import zstd
            return ByteStream(name, zstd.open(cast(BinaryIO, file)), (zstd.ZstdError,))


def decode_text(stream: ByteStream) -> Iterator[str]:
    """The stream as strict UTF-8, in pieces; a byte order mark at its beginning is dropped.

    Raises InputError that names the file, the line (from 1) and the byte (from 0) of what is not UTF-8.
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
