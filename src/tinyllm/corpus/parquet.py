"""Reads one text column of a Parquet file in batches; needs pyarrow, which `tinyllm[data]` installs.

Memory is bounded by the column's largest row group.
"""

from collections.abc import Iterator
from pathlib import Path

from tinyllm.corpus.json_records import find_key, text_of
from tinyllm.corpus.sources import printable
from tinyllm.corpus.streams import open_file
from tinyllm.errors import FormatError, InputError

_BATCH_ROWS = 1024


def read_column(path: Path, text_key: str | None) -> Iterator[str]:
    """The texts of the column `text_key`, else `story`, else `text`; a null is an empty text.

    Raises InputError if pyarrow or the column is missing (with the columns seen), FormatError for a damaged file.
    """
    name = printable(path)
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(
            f"{name}: reading Parquet needs pyarrow; install it with: pip install 'tinyllm[data]'"
        ) from None
    try:
        with open_file(path) as opened, ParquetFile(opened) as file:
            key = find_key(file.schema_arrow.names, name, text_key)
            row = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[key]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    yield text_of({key: value}, f"{name}, row {row}", key)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{name} is not a whole Parquet file: {' '.join(str(error).split())}") from None
