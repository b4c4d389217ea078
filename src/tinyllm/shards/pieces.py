"""Divides a corpus among tasks by the sizes of its files alone, without reading them.

The bytes of all files, one after the other, are cut into equal intervals, one a task. Files inside one interval are
read by its task. A file across several intervals is read by all their tasks, and each encodes some of its batches. So
at most `num_tasks - 1` files are read more than once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path

from tinyllm.corpus.documents import Document, read_source
from tinyllm.corpus.text import DocumentRule
from tinyllm.progress import Note
from tinyllm.shards.encoding import Batch, group

GOLDEN_RATIO = 0x9E3779B97F4A7C15
"""Fraction of the golden ratio times 2**64: its multiples fill an interval evenly (a Weyl sequence)."""


@dataclass(frozen=True)
class Piece:
    """Consecutive files whose documents are batched together."""

    number: int
    first_source: int
    num_sources: int
    start: int
    """Bytes of all earlier files."""
    num_bytes: int
    tasks: range
    """The tasks that read the files; more than one only for a single file."""

    @property
    def places(self) -> range:
        """The places of its files in the list of sources."""
        return range(self.first_source, self.first_source + self.num_sources)


class Division:
    """The pieces of a corpus and their tasks: a pure function of the files' sizes and the number of tasks."""

    def __init__(self, sizes: Sequence[int], num_tasks: int) -> None:
        self._num_bytes, self._num_tasks = sum(sizes), num_tasks
        self.pieces: list[Piece] = []
        ends = list(accumulate(sizes, initial=0))
        for place, size in enumerate(sizes):
            first, last = self._task_at(ends[place]), self._task_at(max(ends[place], ends[place + 1] - 1))
            tasks = range(first, last + 1)
            before = self.pieces[-1] if self.pieces else None
            if before is not None and before.tasks == tasks and len(tasks) == 1:
                self.pieces[-1] = Piece(
                    before.number,
                    before.first_source,
                    before.num_sources + 1,
                    before.start,
                    before.num_bytes + size,
                    tasks,
                )
            else:
                self.pieces.append(Piece(len(self.pieces), place, 1, ends[place], size, tasks))

    def pieces_of(self, task: int) -> list[Piece]:
        """The pieces whose files a task reads."""
        return [piece for piece in self.pieces if task in piece.tasks]

    def task_of(self, piece: Piece, batch: int) -> int:
        """The task that encodes a batch of a piece: of several tasks, each in proportion to its part of the file."""
        offset = (batch * GOLDEN_RATIO % 2**64) * piece.num_bytes >> 64
        return self._task_at(piece.start + offset)

    def _task_at(self, place: int) -> int:
        """The task in whose interval a byte lies."""
        return min(place * self._num_tasks // max(1, self._num_bytes), self._num_tasks - 1)


@dataclass(frozen=True)
class PieceBatch(Batch):
    """A batch with its place in the corpus."""

    piece: int = 0
    number: int = 0
    """Number of the batch in its piece."""


def read_batches(
    sources: Sequence[Path],
    division: Division,
    task: int,
    *,
    documents: DocumentRule,
    text_key: str | None,
    note: Note,
) -> Iterator[PieceBatch]:
    """The batches that a task encodes, in the order of the corpus."""

    def read(path: Path) -> Iterator[Document]:
        return read_source(path, documents=documents, text_key=text_key, note=note)

    for piece in division.pieces_of(task):
        found = chain.from_iterable(read(sources[place]) for place in piece.places)
        for number, batch in enumerate(group(found, lambda document: len(document.text))):
            if division.task_of(piece, number) == task:
                yield PieceBatch(batch, piece=piece.number, number=number)
