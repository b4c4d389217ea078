"""Temporary files without a name, for data of one process that is too large for its memory."""

import mmap
from collections.abc import Iterable
from tempfile import TemporaryFile, gettempdir

from tinyllm.errors import ArtifactError


def map_temporary(parts: Iterable[bytes]) -> mmap.mmap | bytes:
    """All `parts`, one after the other, as the memory-mapped content of a file that ends with its last reader.

    Raises ArtifactError if the folder for temporary files cannot take them.
    """
    try:
        with TemporaryFile() as file:
            for part in parts:
                file.write(part)
            file.flush()
            # An empty file cannot be mapped.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
    except OSError as error:
        raise ArtifactError(
            f"cannot write a temporary file in {gettempdir()}: {error.strerror or error}",
            hint="make room, or set TMPDIR to another folder",
        ) from error
