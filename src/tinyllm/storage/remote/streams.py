"""Reads one object as a stream: a cut or slow connection is opened again, and reading goes on at the same byte.

Memory is a few blocks. A stream of an object that changes meanwhile ends in an error, not in a mixture.
"""

import io
from typing import Any, BinaryIO, cast

from tinyllm.addresses import shown
from tinyllm.errors import InputError
from tinyllm.progress import SILENT, Note
from tinyllm.storage.remote.drivers import file_system, repeat

BLOCK_BYTES, LEAST_BYTES = 2**22, 2**16
"""Most and least bytes of one request."""
GOOD_REQUESTS = 8
"""Requests in a row after which the next ones are twice as large."""


def open_remote(place: str, note: Note = SILENT.note) -> BinaryIO:
    """The object at an address, opened to read. Raises InputError or DownloadError if it cannot be opened."""
    return cast(BinaryIO, io.BufferedReader(RemoteFile(place, note), BLOCK_BYTES))


class RemoteFile(io.RawIOBase):
    """An object's bytes. A failed read opens the object again and goes on where it was.

    After a failure requests are smaller, so that a connection that lasts for few bytes is enough.
    """

    def __init__(self, place: str, note: Note = SILENT.note) -> None:
        super().__init__()
        self.place = place
        self._note = note
        self._position = 0
        self._request_bytes, self._good_requests = BLOCK_BYTES, 0
        self._file: Any = None
        self._version: object = None
        self._repeat(self._reopen)

    @property
    def size(self) -> int | None:
        """Bytes of the object; None if the server does not tell."""
        return cast("int | None", getattr(self._file, "size", None))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable()) and self.size is not None

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if not self.seekable():
            raise io.UnsupportedOperation("this server gives no ranges of a file")
        assert self.size is not None
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        content = self._repeat(lambda: self._read(min(len(view), self._request_bytes)))
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._reopen()
        try:
            if self.seekable() and self._file.tell() != self._position:
                self._file.seek(self._position)
            content: bytes = self._file.read(size)
        except Exception:
            self._file = None
            self._request_bytes, self._good_requests = max(LEAST_BYTES, self._request_bytes // 4), 0
            raise
        expected = None if self.size is None else min(size, self.size - self._position)
        if expected is not None and not content and expected > 0:
            self._file = None
            raise EOFError(f"the connection ended at byte {self._position} of the object")
        self._good_requests += 1
        if self._good_requests == GOOD_REQUESTS:
            self._request_bytes, self._good_requests = min(2 * self._request_bytes, BLOCK_BYTES), 0
        return content

    def _reopen(self) -> None:
        file = file_system(self.place).open(self.place, "rb", block_size=BLOCK_BYTES, cache_type="none")
        details = getattr(file, "details", None) or {}
        version = details.get("ETag"), getattr(file, "size", None)
        if self._version is None:
            self._version = version
        elif self._version != version:
            raise InputError(f"{shown(self.place)} changed while it was read; start again")
        self._file = file
        if self._position and not self.seekable():
            left = self._position
            while left:
                skipped = len(file.read(min(left, BLOCK_BYTES)))
                if not skipped:
                    raise EOFError("the connection ended early")
                left -= skipped

    def _repeat(self, call: Any) -> Any:
        return repeat(call, self.place, note=self._note)
