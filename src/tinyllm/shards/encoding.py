"""Documents to token ids in parallel: batches go out to processes, ids come back in the order they went.

This process encodes too whenever the others have enough to do: reading and writing leave it time, and what it encodes
need not travel. The order and the ids are the same for any number of processes. Nothing is read or written here.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import accumulate, pairwise
from multiprocessing import get_context, parent_process

import numpy as np
import numpy.typing as npt

from tinyllm.corpus.documents import Document
from tinyllm.errors import FormatError, InputError, TinyllmError
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.word_cache import ID_BYTES, cached_encoder

BATCHES_A_HELPER = 3
"""One that it encodes and some that wait, for as long as this process is busy with a batch of its own."""
MOST_BATCHES = 8
"""So many batches a process may be in memory, while the first of them is not done."""
TURN_SECONDS = 1e-4
"""How long this process's own work may keep the threads waiting that feed its helpers; Python's habit is 5e-3."""

Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Batch:
    """Documents that are encoded in one go."""

    documents: list[Document]
    are_validation: list[bool]

    @property
    def texts(self) -> list[str]:
        return [document.text for document in self.documents]


@dataclass(frozen=True)
class EncodedTexts:
    """The ids of all texts as one array, which travels and is checked at once."""

    ids: Ids
    ends: list[int]
    """Where each text ends in `ids`."""
    text_bytes: list[int]
    """Of each text in UTF-8."""

    def split(self) -> list[Ids]:
        """The ids of each text."""
        return [self.ids[start:end] for start, end in pairwise([0, *self.ends])]


class Encoder:
    """Encodes documents, and remembers the ids of words from one call to the next."""

    def __init__(self, tokenizer: Tokenizer, append_eos: bool = False) -> None:
        self.tokenizer = tokenizer
        self._encode = cached_encoder(tokenizer)
        ends = np.array(tokenizer.encode("", bos=True, eos=append_eos), dtype=np.uint32)
        self._before, self._after = ends[:1].tobytes(), ends[1:].tobytes()

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """The ids of each text, BOS first, and EOS last if asked. Raises InputError as `Tokenizer.encode` does."""
        all_ids = [self._before + self._encode(text) + self._after for text in texts]
        ends = accumulate(len(ids) // ID_BYTES for ids in all_ids)
        text_bytes = [len(text.encode()) for text in texts]
        return EncodedTexts(np.frombuffer(b"".join(all_ids), dtype=np.uint32), list(ends), text_bytes)


def encode_in_order(
    batches: Iterable[Batch], tokenizer: Tokenizer, append_eos: bool, num_workers: int
) -> Generator[tuple[Batch, EncodedTexts], None, None]:
    """Each batch with the ids of its documents, encoded by `num_workers` processes, of which this is one.

    A few batches a process are under way at a time, so memory is bounded. With helpers, threads of the whole process
    take shorter turns (`TURN_SECONDS`) until it ends. Raises InputError naming the file of a
    document that cannot be encoded, TinyllmError naming files where a process died.
    """
    encoder = Encoder(tokenizer, append_eos)
    num_helpers = num_workers - 1
    if not num_helpers:
        for batch in batches:
            yield batch, _check(batch, _encode_here(encoder, batch), encoder)
        return
    # Spawned, not forked: the caller may have threads (a progress bar), and macOS knows no safe fork.
    pool = ProcessPoolExecutor(
        num_helpers, get_context("spawn"), _start_worker, (tokenizer.model_proto, tokenizer.name, append_eos)
    )
    under_way: deque[tuple[Batch, Future[EncodedTexts]]] = deque()
    usual_turn = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    try:
        for batch in batches:
            num_waiting = sum(not future.done() for _, future in under_way)
            if num_waiting < BATCHES_A_HELPER * num_helpers:
                under_way.append((batch, pool.submit(_encode_in_worker, batch.texts)))
            else:
                under_way.append((batch, _encode_here(encoder, batch)))
            while under_way and (under_way[0][1].done() or len(under_way) > MOST_BATCHES * num_workers):
                yield _next_result(under_way, encoder)
        while under_way:
            yield _next_result(under_way, encoder)
    except BrokenProcessPool:
        raise _worker_died([*(waiting for waiting, _ in under_way), batch]) from None
    finally:
        sys.setswitchinterval(usual_turn)
        pool.shutdown(wait=True, cancel_futures=True)


def _next_result(under_way: deque[tuple[Batch, Future[EncodedTexts]]], encoder: Encoder) -> tuple[Batch, EncodedTexts]:
    batch, answer = under_way[0]
    encoded = _check(batch, answer, encoder)
    under_way.popleft()
    return batch, encoded


def _encode_here(encoder: Encoder, batch: Batch) -> Future[EncodedTexts]:
    """What a helper would answer, an error too: it is raised when its turn comes."""
    done: Future[EncodedTexts] = Future()
    try:
        done.set_result(encoder.encode(batch.texts))
    except InputError as error:
        done.set_exception(error)
    return done


def _check(batch: Batch, answer: Future[EncodedTexts], encoder: Encoder) -> EncodedTexts:
    """The ids of the batch. Raises InputError or FormatError that names the file of a document without right ids."""
    try:
        encoded = answer.result()
    except InputError:
        # Once more, one by one, to tell which document it was.
        for document in batch.documents:
            try:
                encoder.encode([document.text])
            except InputError as error:
                raise InputError(f"{document.source}: a document cannot be encoded: {error}") from None
        raise
    tokenizer, largest = encoder.tokenizer, encoded.ids.max()
    if largest >= tokenizer.vocab_size:
        source = next(
            document.source
            for document, ids in zip(batch.documents, encoded.split(), strict=True)
            if ids.max() == largest
        )
        raise FormatError(f"{source}: {tokenizer.name} gave id {largest}, out of its own range")
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


def _encode_in_worker(texts: list[str]) -> EncodedTexts:
    return _Worker.encoder.encode(texts)


def _worker_died(batches: Iterable[Batch]) -> TinyllmError:
    sources = list(dict.fromkeys(document.source for batch in batches for document in batch.documents))
    names = ", ".join(sources[:3]) + (", …" if len(sources) > 3 else "")
    return TinyllmError(
        f"a worker process died while encoding {names}: it was killed, or memory ran out; "
        "finished shards are kept, so run the command again, with fewer --workers if memory is short "
        '(a script of yours must call prepare under `if __name__ == "__main__":`, since workers import it)'
    )
