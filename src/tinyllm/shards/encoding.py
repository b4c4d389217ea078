"""Documents to token ids in parallel: batches go out to processes, ids come back in the order they went.

This process encodes too whenever the others have enough to do: reading and writing leave it time, and what it encodes
need not travel. The order and the ids are the same for any number of processes. Nothing is read or written here.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import accumulate, pairwise
from multiprocessing import get_context, parent_process

import numpy as np

from tinyllm.corpus.documents import Document
from tinyllm.errors import FormatError, InputError, TinyllmError
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.word_cache import Ids, cached_encoder

BATCHES_A_HELPER = 2
"""One that it encodes and one that waits, so that it never does."""
MOST_BATCHES = 4
"""So many batches a process may be in memory, while the first of them is not done."""

_Joined = tuple[Ids, list[int]]
"""The ids of a batch as one array, and where each document ends in it."""


@dataclass(frozen=True)
class Batch:
    """Documents that are encoded in one go."""

    documents: list[Document]
    are_validation: list[bool]


class Encoder:
    """Encodes documents, and remembers the ids of words from one call to the next."""

    def __init__(self, tokenizer: Tokenizer, append_eos: bool = False) -> None:
        self.tokenizer = tokenizer
        self._encode = cached_encoder(tokenizer)
        ends = np.array(tokenizer.encode("", bos=True, eos=append_eos), dtype=np.uint32)
        self._before, self._after = ends[:1], ends[1:]

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, BOS first, and EOS last if asked. Raises InputError as `Tokenizer.encode` does."""
        return [np.concatenate((self._before, self._encode(text), self._after)) for text in texts]


def encode_in_order(
    batches: Iterable[Batch], tokenizer: Tokenizer, append_eos: bool, num_workers: int
) -> Generator[tuple[Batch, list[Ids]], None, None]:
    """Each batch with the ids of its documents, encoded by `num_workers` processes, of which this is one.

    A few batches a process are under way at a time, so memory is bounded. Raises InputError naming the file of a
    document that cannot be encoded, TinyllmError naming files where a process died.
    """
    encoder = Encoder(tokenizer, append_eos)
    num_helpers = num_workers - 1
    if not num_helpers:
        yield from ((batch, _encode_batch(encoder, batch.documents)) for batch in batches)
        return
    # Spawned, not forked: the caller may have threads (a progress bar), and macOS knows no safe fork.
    pool = ProcessPoolExecutor(
        num_helpers, get_context("spawn"), _start_worker, (tokenizer.model_proto, tokenizer.name, append_eos)
    )
    under_way: deque[tuple[Batch, Future[_Joined]]] = deque()
    try:
        for batch in batches:
            num_waiting = sum(not future.done() for _, future in under_way)
            if num_waiting < BATCHES_A_HELPER * num_helpers:
                under_way.append((batch, pool.submit(_encode_in_worker, batch.documents)))
            else:
                under_way.append((batch, _encode_here(encoder, batch.documents)))
            while under_way and (under_way[0][1].done() or len(under_way) > MOST_BATCHES * num_workers):
                yield _next_result(under_way)
        while under_way:
            yield _next_result(under_way)
    except BrokenProcessPool:
        raise _worker_died([*(waiting for waiting, _ in under_way), batch]) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _next_result(under_way: deque[tuple[Batch, Future[_Joined]]]) -> tuple[Batch, list[Ids]]:
    batch, future = under_way[0]
    joined, ends = future.result()
    under_way.popleft()
    return batch, [joined[start:end] for start, end in pairwise([0, *ends])]


def _encode_here(encoder: Encoder, documents: Sequence[Document]) -> Future[_Joined]:
    """What a helper would answer, an error too: it is raised when its turn comes."""
    done: Future[_Joined] = Future()
    try:
        done.set_result(_join(_encode_batch(encoder, documents)))
    except TinyllmError as error:
        done.set_exception(error)
    return done


def _join(all_ids: Sequence[Ids]) -> _Joined:
    """Between processes a thousand small arrays cost a thousand times as much as one."""
    return np.concatenate(all_ids), list(accumulate(map(len, all_ids)))


def _encode_batch(encoder: Encoder, documents: Sequence[Document]) -> list[Ids]:
    try:
        encoded = encoder.encode([document.text for document in documents])
    except InputError:
        # Once more, one by one, to tell which document it was.
        for document in documents:
            try:
                encoder.encode([document.text])
            except InputError as error:
                raise InputError(f"{document.source}: a document cannot be encoded: {error}") from None
        raise
    for document, ids in zip(documents, encoded, strict=True):
        if ids.max() >= encoder.tokenizer.vocab_size:
            raise FormatError(f"{document.source}: {encoder.tokenizer.name} gave id {ids.max()}, out of its own range")
    return encoded


class _Worker:
    """What a worker process keeps between batches."""

    encoder: Encoder


def _start_worker(model_proto: bytes, name: str, append_eos: bool) -> None:
    # Ctrl-C reaches the whole group of processes; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _Worker.encoder = Encoder(Tokenizer.from_bytes(model_proto, name), append_eos)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers; without this they would wait for ever."""
    parent = parent_process()
    assert parent is not None, "a worker is started by multiprocessing"
    parent.join()
    os._exit(1)


def _encode_in_worker(documents: list[Document]) -> _Joined:
    return _join(_encode_batch(_Worker.encoder, documents))


def _worker_died(batches: Iterable[Batch]) -> TinyllmError:
    sources = list(dict.fromkeys(document.source for batch in batches for document in batch.documents))
    names = ", ".join(sources[:3]) + (", …" if len(sources) > 3 else "")
    return TinyllmError(
        f"a worker process died while encoding {names}: it was killed, or memory ran out; "
        "finished shards are kept, so run the command again, with fewer --workers if memory is short"
    )
