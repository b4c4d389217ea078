"""Finds documents of shards that contain a text, within a bounded time; the caller goes on where it ended.

Upper and lower case of ASCII letters are the same. The first match of a document counts.
"""

import time
from itertools import pairwise
from typing import Any

from tinyllm.serving.studio.shard_view import Ids, ShardView, SplitView
from tinyllm.tokenizer.codec import Tokenizer

MOST_SECONDS = 2.0
MOST_MATCHES = 20
CHUNK_DOCUMENTS = 256
CHUNK_TOKENS = 2**19
"""Tokens that are searched at a time; of a longer document only the first ones are searched."""
AROUND_CHARACTERS = 60


def search(view: ShardView, split: SplitView, text: str, start: int, seconds: float = MOST_SECONDS) -> dict[str, Any]:
    """At most `MOST_MATCHES` documents with `text` from number `start` on, and the number to go on from, if any."""
    end = time.monotonic() + seconds
    needle = text.encode(errors="replace").lower()
    texts = _texts(view.tokenizer)
    matches: list[dict[str, Any]] = []
    number = start
    while number < split.num_documents:
        if time.monotonic() > end:
            return {"matches": matches, "next": number}
        number, first, file, bounds = _chunk(split, number)
        ids = file.ids(bounds[0], min(bounds[-1], bounds[0] + CHUNK_TOKENS))
        if needle in _join(texts, ids).lower():
            for index, (begin, after) in enumerate(pairwise(bounds)):
                content = _join(texts, ids[begin - bounds[0] : after - bounds[0]])
                if view.tokenizer.proto.add_dummy_prefix:
                    content = content.removeprefix(b" ")
                place = content.lower().find(needle)
                if place >= 0:
                    matches.append({"index": first + index, **_around(content, place, len(needle))})
                    if len(matches) == MOST_MATCHES:
                        after_it = first + index + 1
                        return {"matches": matches, "next": after_it if after_it < split.num_documents else None}
    return {"matches": matches, "next": None}


def _chunk(split: SplitView, start: int) -> tuple[int, int, Any, list[int]]:
    """The next documents: the number after them, the number of the first, their shard, and their borders in it."""
    number, file, first, end = next(split.parts(start, start + CHUNK_DOCUMENTS))
    bounds = file.bounds(first, end).tolist()
    fitting = [bound for bound in bounds if bound - bounds[0] <= CHUNK_TOKENS]
    bounds = fitting if len(fitting) > 1 else bounds[:2]
    return number + len(bounds) - 1, number, file, bounds


def _texts(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of every id."""
    return [tokenizer.piece_bytes(id) for id in range(tokenizer.vocab_size)]


def _join(texts: list[bytes], ids: Ids) -> bytes:
    """The text of ids; an id that the tokenizer lacks has none."""
    size = len(texts)
    return b"".join([texts[id] for id in ids.tolist() if id < size])


def _around(content: bytes, place: int, length: int) -> dict[str, str]:
    """The match with the characters around it."""
    most = 4 * AROUND_CHARACTERS
    before = content[max(0, place - most) : place].decode(errors="ignore")
    after = content[place + length : place + length + most].decode(errors="ignore")
    return {
        "before": before[-AROUND_CHARACTERS:],
        "match": content[place : place + length].decode(errors="replace"),
        "after": after[:AROUND_CHARACTERS],
    }
