"""Batches over processes: texts go out to helpers, ids come back in the order the texts went.

This process encodes too whenever its helpers have enough to do: reading and writing leave it time, and what it encodes
need not travel. The rest travels through files, and a word over a pipe says which: a pipe takes 64 KB at a time, so for
each batch both sides would wait for each other some dozens of times. The order and the ids are the same for any number
of processes.
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

from tinyllm.errors import ArtifactError, FormatError, InputError, TinyllmError
from tinyllm.shards.encoding import Batch, EncodedTexts, Encoder
from tinyllm.tokenizer.codec import Tokenizer

BATCHES_A_HELPER = 8
"""One that it encodes and some that wait, for as long as this process is busy with a shard of its own."""
MOST_BATCHES = 12
"""So many batches a process may be in memory, while the first of them is not done."""
FOLDER_PREFIX = "tinyllm-batches-"
"""Of the folder, among the system's temporary ones, through which batches travel."""


def encode_in_order(
    batches: Iterable[Batch], tokenizer: Tokenizer, append_eos: bool, num_workers: int
) -> Generator[tuple[Batch, EncodedTexts], None, None]:
    """Each batch with the ids of its documents, encoded by `num_workers` processes, of which this is one.

    A few batches a process are under way at a time, so memory is bounded. Raises InputError or FormatError naming the
    file of a document that cannot be encoded, TinyllmError naming files where a process died, ArtifactError where the
    folder for temporary files takes no more.
    """
    encoder = Encoder(tokenizer, append_eos)
    num_helpers = num_workers - 1
    if not num_helpers:
        for batch in batches:
            yield batch, _check(batch, _encode_here(encoder, batch), encoder)
        return
    under_way: deque[tuple[Batch, _Answer]] = deque()
    with _start_helpers(num_helpers, tokenizer, append_eos) as helpers:
        try:
            for batch in batches:
                num_waiting = sum(not answer.done() for _, answer in under_way)
                if num_waiting < BATCHES_A_HELPER * num_helpers:
                    under_way.append((batch, helpers.send(batch)))
                else:
                    under_way.append((batch, _encode_here(encoder, batch)))
                while under_way and (under_way[0][1].done() or len(under_way) > MOST_BATCHES * num_workers):
                    yield _next_result(under_way, encoder)
            while under_way:
                while not under_way[0][1].done() and _take_back(under_way, encoder):
                    pass
                yield _next_result(under_way, encoder)
        except BrokenProcessPool:
            raise _worker_died([*(waiting for waiting, _ in under_way), batch]) from None


class _Errand:
    """A batch at a helper: its texts are in a file, and there its ids will be."""

    def __init__(self, pool: ProcessPoolExecutor, path: Path, batch: Batch) -> None:
        self._path = path
        with _told_by_us(path), path.open("wb") as file:
            pickle.dump(batch.texts, file, pickle.HIGHEST_PROTOCOL)
        self._end = pool.submit(_encode_file, path)

    def done(self) -> bool:
        """Whether `result` would not have to wait."""
        return self._end.done()

    def cancel(self) -> bool:
        """Takes the batch back, unless a helper has begun or has it next; gives whether it did."""
        is_cancelled = self._end.cancel()
        if is_cancelled:
            self._path.unlink(missing_ok=True)
        return is_cancelled

    def result(self) -> EncodedTexts:
        """Waits for the ids, or raises what happened to the helper. The file is gone then."""
        with _told_by_us(self._path):
            self._end.result()
            with self._path.open("rb") as file:
                encoded: EncodedTexts = pickle.load(file)
            self._path.unlink()
        return encoded


_Answer = Future[EncodedTexts] | _Errand


class _Helpers:
    """Processes that encode what they are sent."""

    def __init__(self, pool: ProcessPoolExecutor, folder: Path) -> None:
        self._pool = pool
        self._paths = (folder / f"batch-{number}" for number in count())

    def send(self, batch: Batch) -> _Errand:
        """Has a batch encoded. Raises BrokenProcessPool where a helper is dead."""
        return _Errand(self._pool, next(self._paths), batch)


@contextmanager
def _start_helpers(num_helpers: int, tokenizer: Tokenizer, append_eos: bool) -> Iterator[_Helpers]:
    """Helpers for as long as the block takes; what they have not begun then is left."""
    with _told_by_us(Path(gettempdir())):
        temporary = TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
    with temporary as folder:
        worker = (tokenizer.model_proto, tokenizer.name, append_eos, folder)
        # Spawned, not forked: the caller may have threads (a progress bar), and macOS knows no safe fork.
        pool = ProcessPoolExecutor(num_helpers, get_context("spawn"), _start_worker, worker)
        try:
            yield _Helpers(pool, Path(folder))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _next_result(under_way: deque[tuple[Batch, _Answer]], encoder: Encoder) -> tuple[Batch, EncodedTexts]:
    batch, answer = under_way[0]
    encoded = _check(batch, answer, encoder)
    under_way.popleft()
    return batch, encoded


def _take_back(under_way: deque[tuple[Batch, _Answer]], encoder: Encoder) -> bool:
    """Encodes the last batch here that no helper has begun; gives whether there was one."""
    for place, (batch, answer) in reversed(list(enumerate(under_way))):
        if answer.cancel():
            under_way[place] = batch, _encode_here(encoder, batch)
            return True
    return False


def _encode_here(encoder: Encoder, batch: Batch) -> Future[EncodedTexts]:
    """What a helper would answer, an error too: it is raised when its turn comes."""
    done: Future[EncodedTexts] = Future()
    try:
        done.set_result(encoder.encode(batch.texts))
    except (InputError, FormatError) as error:
        done.set_exception(error)
    return done


def _check(batch: Batch, answer: _Answer, encoder: Encoder) -> EncodedTexts:
    """The ids of the batch. Raises InputError or FormatError that names the file of a document without right ids."""
    try:
        return answer.result()
    except (InputError, FormatError):
        # Once more, one by one, to tell which document it was.
        for document in batch.documents:
            try:
                encoder.encode([document.text])
            except (InputError, FormatError) as error:
                raise type(error)(f"{document.source}: a document cannot be encoded: {error}") from None
        raise


class _Worker:
    """What a worker process keeps between batches."""

    encoder: Encoder


def _start_worker(model_proto: bytes, name: str, append_eos: bool, folder: str) -> None:
    # Ctrl-C reaches the whole group of processes; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    _Worker.encoder = Encoder(Tokenizer.from_bytes(model_proto, name), append_eos)


def _end_with_parent(folder: str) -> None:
    """A parent that was killed can neither end its workers, which would wait for ever, nor remove its folder."""
    parent = parent_process()
    assert parent is not None, "a worker is started by multiprocessing"
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _encode_file(path: Path) -> None:
    """Puts the ids of the texts of a file in their place."""
    with path.open("rb") as file:
        texts: list[str] = pickle.load(file)
    encoded = _Worker.encoder.encode(texts)
    with path.open("wb") as file:
        pickle.dump(encoded, file, pickle.HIGHEST_PROTOCOL)


@contextmanager
def _told_by_us(path: Path) -> Iterator[None]:
    """Where the system refuses a file inside, an ArtifactError says which, and what to do."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"cannot pass a batch to a helper through {path}: {error.strerror or error}; "
            "make room, name another folder by TMPDIR, or take --workers 1, which needs no files"
        ) from error


def _worker_died(batches: Iterable[Batch]) -> TinyllmError:
    sources = list(dict.fromkeys(document.source for batch in batches for document in batch.documents))
    names = ", ".join(sources[:3]) + (", …" if len(sources) > 3 else "")
    return TinyllmError(
        f"a worker process died while encoding {names}: it was killed, or memory ran out; "
        "finished shards are kept, so run the command again, with fewer --workers if memory is short "
        '(a script of yours must call prepare under `if __name__ == "__main__":`, since workers import it)'
    )
