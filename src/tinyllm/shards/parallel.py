"""Encodes batches in several processes and returns the results in the order of the batches.

This process also encodes while its workers have enough batches waiting, which saves the transfer. Batches are
transferred in files, and only paths are sent through pipes. A pipe takes 64 KB at a time, so larger messages would
block both sides dozens of times. Order and ids are the same for any number of processes.
"""

import os
import pickle
import shutil
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TypeVar

from tinyllm.errors import ArtifactError, FormatError, InputError, TinyllmError
from tinyllm.machine.signals import children_without_sigint
from tinyllm.shards.encoding import Batch, EncodedTexts, Encoder
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.opening import tokenizer_of_files

AnyBatch = TypeVar("AnyBatch", bound=Batch)
BATCHES_PER_WORKER = 8
"""Batches sent to a worker in advance, so that it has work while this process writes a shard."""
MAX_BATCHES_PER_PROCESS = 12
"""Per-process limit of buffered batches while the oldest is pending."""
FOLDER_PREFIX = "tinyllm-batches-"
"""Prefix of the temporary folder for batches in transfer."""


def encode_in_order(
    batches: Iterable[AnyBatch], tokenizer: Tokenizer, append_eos: bool, num_workers: int
) -> Generator[tuple[AnyBatch, EncodedTexts], None, None]:
    """Each batch with its encoded documents, in order, computed by `num_workers` processes including this one.

    The number of buffered batches is bounded. Raises InputError or FormatError naming the file of a document that
    cannot be encoded. Raises TinyllmError naming files if a process died, ArtifactError if the temporary folder cannot
    be written.
    """
    encoder = Encoder(tokenizer, append_eos)
    num_other_workers = num_workers - 1
    if not num_other_workers:
        for batch in batches:
            yield batch, _ids_of(batch, _encode_here(encoder, batch), encoder)
        return
    pending: deque[tuple[AnyBatch, _Result]] = deque()
    with _start_workers(num_other_workers, tokenizer, append_eos) as workers:
        try:
            for batch in batches:
                num_waiting = sum(not result.done() for _, result in pending)
                if num_waiting < BATCHES_PER_WORKER * num_other_workers:
                    pending.append((batch, workers.send(batch)))
                else:
                    pending.append((batch, _encode_here(encoder, batch)))
                while pending and (pending[0][1].done() or len(pending) > MAX_BATCHES_PER_PROCESS * num_workers):
                    yield _next_result(pending, encoder)
            while pending:
                while not pending[0][1].done() and _reclaim_batch(pending, encoder):
                    pass
                yield _next_result(pending, encoder)
        except BrokenProcessPool:
            raise _worker_died([*(sent for sent, _ in pending), batch]) from None


class _SentBatch:
    """A batch sent to a worker through a file, which the worker replaces by the ids."""

    def __init__(self, pool: ProcessPoolExecutor, path: Path, batch: Batch) -> None:
        self._path = path
        with _as_artifact_error(path), path.open("wb") as file:
            pickle.dump(batch.texts, file, pickle.HIGHEST_PROTOCOL)
        with children_without_sigint():
            self._end = pool.submit(_encode_file, path)

    def done(self) -> bool:
        """Whether `result` returns without waiting."""
        return self._end.done()

    def cancel(self) -> bool:
        """Takes the batch back unless a worker has started it or has it next; returns whether it was taken back."""
        is_cancelled = self._end.cancel()
        if is_cancelled:
            self._path.unlink(missing_ok=True)
        return is_cancelled

    def result(self) -> EncodedTexts:
        """Waits for the ids, or raises the worker's error. The file is removed if there was no error."""
        with _as_artifact_error(self._path):
            self._end.result()
            with self._path.open("rb") as file:
                encoded: EncodedTexts = pickle.load(file)
            self._path.unlink()
        return encoded


_Result = Future[EncodedTexts] | _SentBatch


class _Workers:
    """Worker processes that encode batches."""

    def __init__(self, pool: ProcessPoolExecutor, folder: Path) -> None:
        self._pool = pool
        self._paths = (folder / f"batch-{number}" for number in count())

    def send(self, batch: Batch) -> _SentBatch:
        """Sends a batch to a worker. Raises BrokenProcessPool if a worker died."""
        return _SentBatch(self._pool, next(self._paths), batch)


@contextmanager
def _start_workers(num_other_workers: int, tokenizer: Tokenizer, append_eos: bool) -> Iterator[_Workers]:
    """Runs worker processes within the block; at its end, batches that have not started are dropped."""
    with _as_artifact_error(Path(gettempdir())):
        temporary = TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
    with temporary as folder:
        arguments = (tokenizer.files, tokenizer.name, append_eos, folder)
        # Processes are spawned: the caller may have threads (a progress bar), and forking is unsafe on macOS.
        pool = ProcessPoolExecutor(num_other_workers, get_context("spawn"), _start_worker, arguments)
        try:
            yield _Workers(pool, Path(folder))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _next_result(pending: deque[tuple[AnyBatch, _Result]], encoder: Encoder) -> tuple[AnyBatch, EncodedTexts]:
    batch, result = pending[0]
    encoded = _ids_of(batch, result, encoder)
    pending.popleft()
    return batch, encoded


def _reclaim_batch(pending: deque[tuple[AnyBatch, _Result]], encoder: Encoder) -> bool:
    """Encodes the last batch that no worker has started in this process; returns whether there was one."""
    for place, (batch, result) in reversed(list(enumerate(pending))):
        if result.cancel():
            pending[place] = batch, _encode_here(encoder, batch)
            return True
    return False


def _encode_here(encoder: Encoder, batch: Batch) -> Future[EncodedTexts]:
    """The result of encoding the batch in this process; like a worker's, an error is raised by `result`."""
    done: Future[EncodedTexts] = Future()
    try:
        done.set_result(encoder.encode(batch.texts))
    except (InputError, FormatError) as error:
        done.set_exception(error)
    return done


def _ids_of(batch: Batch, result: _Result, encoder: Encoder) -> EncodedTexts:
    """The ids of the batch. Raises InputError or FormatError naming the file of a document that cannot be encoded."""
    try:
        return result.result()
    except (InputError, FormatError):
        # Encode the documents one by one to find the faulty one.
        for document in batch.documents:
            try:
                encoder.encode([document.text])
            except (InputError, FormatError) as error:
                raise type(error)(f"{document.source}: a document cannot be encoded: {error}") from None
        raise


class _Worker:
    """The state of a worker process between batches."""

    encoder: Encoder


def _start_worker(files: dict[str, bytes], name: str, append_eos: bool, folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    _Worker.encoder = Encoder(tokenizer_of_files(files, name), append_eos)


def _end_with_parent(folder: str) -> None:
    """Ends a worker whose parent was killed, and removes the folder; nobody else would do either."""
    parent = parent_process()
    assert parent is not None, "a worker is started by multiprocessing"
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _encode_file(path: Path) -> None:
    """Replaces the texts in a file by their ids."""
    with path.open("rb") as file:
        texts: list[str] = pickle.load(file)
    encoded = _Worker.encoder.encode(texts)
    with path.open("wb") as file:
        pickle.dump(encoded, file, pickle.HIGHEST_PROTOCOL)


@contextmanager
def _as_artifact_error(path: Path) -> Iterator[None]:
    """Converts an OSError inside the block to an ArtifactError with the path and the remedy."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"cannot pass a batch to a worker process through {path}: {error.strerror or error}",
            hint="make room, set TMPDIR to another folder, or use `num_workers=1`, which needs no files",
        ) from error


def _worker_died(batches: Iterable[Batch]) -> TinyllmError:
    sources = list(dict.fromkeys(document.source for batch in batches for document in batch.documents))
    names = ", ".join(sources[:3]) + (", …" if len(sources) > 3 else "")
    return TinyllmError(
        f"a worker process died while encoding {names}: it was killed, or memory ran out",
        hint="finished shards are kept, so run it again, with fewer `num_workers` if memory is short "
        '(a script of yours must call prepare under `if __name__ == "__main__":`, because workers import it)',
    )
