"""A survey of a corpus: its size, its documents, its characters, how much of it repeats, and how short tokens make it.

Everything streams: memory is bounded by a sample of lines and by eight bytes a document.
"""

import bz2
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tinyllm.corpus.documents import Document
from tinyllm.errors import InputError
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import SPACE
from tinyllm.tokenizer.training import LEAST_COVERAGE, NUM_META_PIECES, sample_lines, train_model

SAMPLE_BYTES = 1_000_000
"""Text that candidate tokenizers are trained on, and that is compressed."""
VOCAB_SIZES = (512, 1024, 2048, 4096, 8192)
FULL_COVERAGE = 0.98
"""Least character coverage that half of a vocabulary should reach."""
CHARACTERS_PART = 0.9
"""Part of a vocabulary for characters if half of it does not reach `FULL_COVERAGE`."""


@dataclass(frozen=True)
class Survey:
    """The facts of a corpus that a plan depends on."""

    num_bytes: int
    """UTF-8 bytes of all documents."""
    num_documents: int
    num_characters: int
    """Different characters of the sample."""
    repeated_bytes: int
    """UTF-8 bytes of documents that equal an earlier one."""
    compressed_bits: float
    """Bits per byte of the sample after bz2: a measure of how hard the text is to predict."""


@dataclass(frozen=True)
class Vocabulary:
    """A candidate vocabulary, tried on a sample of the corpus."""

    size: int
    """Number of tokens."""
    character_coverage: float
    """Fraction of all characters that have a token of their own; others are encoded as bytes."""
    bytes_per_token: float
    """Mean UTF-8 bytes of a token of the sample."""


def survey(documents: Iterable[Document], seed: int = 0) -> tuple[Survey, list[str]]:
    """The survey of `documents`, and a sample of their lines, at most `SAMPLE_BYTES` of UTF-8."""
    seen: set[bytes] = set()
    num_bytes = num_documents = repeated_bytes = 0

    def count(texts: Iterable[Document]) -> Iterator[str]:
        nonlocal num_bytes, num_documents, repeated_bytes
        for document in texts:
            content = document.text.encode()
            key = blake2b(content, digest_size=8).digest()
            num_bytes += len(content)
            num_documents += 1
            repeated_bytes += len(content) if key in seen else 0
            seen.add(key)
            yield document.text

    lines = sample_lines(count(documents), SAMPLE_BYTES, seed).lines
    content = "\n".join(lines).encode()
    facts = Survey(
        num_bytes,
        num_documents,
        num_characters=len(set().union(*lines)),
        repeated_bytes=repeated_bytes,
        compressed_bits=8 * len(bz2.compress(content)) / max(1, len(content)),
    )
    return facts, lines


def try_vocabularies(lines: Sequence[str], sizes: Iterable[int] = VOCAB_SIZES) -> list[Vocabulary]:
    """The vocabularies of `sizes` that `lines` allow, smallest first.

    Rare characters are left to bytes where all characters would take more than half of a vocabulary. If half of it
    covers too little of the text, as of Chinese text, characters get `CHARACTERS_PART`. Raises InputError if the text
    allows none of the sizes, nor one below the smallest.
    """
    characters = Counter(SPACE if character == " " else character for line in lines for character in line)
    found = [vocabulary for size in sizes if (vocabulary := _try(lines, characters, size))]
    if found:
        return found
    for size in (384, 320, NUM_META_PIECES + 1 + len(characters | {SPACE: 1})):
        try:
            return [_measure(lines, size, 1.0)]
        except InputError:  # a smaller size is tried
            continue
    raise InputError(
        f"the corpus is too small to learn from: {len(characters)} different characters on {len(lines)} lines allow no "
        "vocabulary; give more text, or text with more variety"
    )


def _try(lines: Sequence[str], characters: Counter[str], size: int) -> Vocabulary | None:
    """The vocabulary of `size`, or None if the text is too small or has too many characters for it."""
    room = size - NUM_META_PIECES
    coverage = _coverage(characters, room // 2)
    if coverage < FULL_COVERAGE:
        coverage = _coverage(characters, int(room * CHARACTERS_PART))
    if coverage < LEAST_COVERAGE:
        return None
    try:
        return _measure(lines, size, coverage)
    except InputError:  # another size is tried; `try_vocabularies` raises if none is left
        return None


def _coverage(characters: Counter[str], most: int) -> float:
    """The fraction of the text that its `most` commonest characters make up."""
    if len(characters) <= most:
        return 1.0
    return sum(count for _, count in characters.most_common(most)) / characters.total()


def _measure(lines: Sequence[str], size: int, coverage: float) -> Vocabulary:
    tokenizer = Tokenizer.from_bytes(train_model(list(lines), size, coverage), "candidate tokenizer")
    return try_tokenizer(lines, tokenizer, coverage)


def try_tokenizer(lines: Sequence[str], tokenizer: Tokenizer, coverage: float = 1.0) -> Vocabulary:
    """The vocabulary of `tokenizer`, tried on `lines`."""
    num_tokens = sum(len(tokenizer.encode(line, bos=False)) + 1 for line in lines)
    num_bytes = sum(len(line.encode()) + 1 for line in lines)
    return Vocabulary(tokenizer.vocab_size, coverage, num_bytes / num_tokens)
