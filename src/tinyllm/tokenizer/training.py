"""Trains a SentencePiece BPE tokenizer: equal texts and options give equal bytes.

Pieces are learned from lines, as in llama2.c: a newline is never part of a piece and is encoded as its byte.
This module receives texts and reads no files.
"""

import heapq
import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from sentencepiece import SentencePieceTrainer

from tinyllm import storage
from tinyllm.errors import InputError, UsageError
from tinyllm.progress import SILENT, Note
from tinyllm.tokenizer.codec import MODEL_NAME, Tokenizer
from tinyllm.tokenizer.files import VOCAB_NAME, hugging_face_files, vocab_text
from tinyllm.tokenizer.model_proto import SPACE
from tinyllm.tokenizer.proto_writer import with_reserved

NUM_META_PIECES = 259
"""The pieces in every vocabulary: `<unk>`, `<s>`, `</s>` and the 256 bytes."""
VOCAB_LIMIT = 2**20
LEAST_COVERAGE = 0.5
"""Smallest character coverage."""
LEAST_COVERAGE_OF_SENTENCEPIECE = 0.98
MAX_SPECIAL_CHARACTERS = 64
MAX_LINE_BYTES = 2**20
"""Longer lines are cut, because SentencePiece would drop them."""
LEAST_OCCURRENCES = 20
"""Mean occurrences of a token in the training text below which the vocabulary is reported as too large."""
MOST_BYTES_PER_TOKEN = 8
"""No natural text has longer tokens on average, so a text of enough bytes need not be encoded to count its tokens."""
_RESERVED = "\u2585"  # SentencePiece drops a line that contains this character.


@dataclass(frozen=True)
class Sample:
    """The training lines of a tokenizer, and the size of the text they were drawn from."""

    lines: list[str]
    num_documents: int
    num_lines: int
    num_bytes: int
    """UTF-8 bytes of the sampled lines."""


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    output: Path,
    *,
    character_coverage: float = 1.0,
    max_input_bytes: int = 100_000_000,
    seed: int = 0,
    special: Sequence[str] = (),
    overwrite: bool = False,
    note: Note = SILENT.note,
) -> Tokenizer:
    """Trains on documents, and commits the directory `output`: SentencePiece's files and Hugging Face's.

    `special` reserves control pieces, which get the last ids. A text that contains one literally encodes to it only if
    `Tokenizer.encode` is called with `allow_special`. From more than `max_input_bytes` of text, a random sample of
    lines is drawn with `seed`, which bounds memory. `note` gets a line if the text is too short for the vocabulary.
    Raises InputError if the text does not allow `vocab_size` pieces, UsageError for an option out of range,
    ArtifactError if `output` cannot be written.
    """
    _check_options(vocab_size, character_coverage, max_input_bytes, special)
    storage.check_replaceable(output, "tokenizer", overwrite=overwrite)
    storage.check_writable(output)
    sample = sample_lines(texts, max_input_bytes, seed)
    model_proto = train_model(sample.lines, vocab_size, character_coverage, special)
    tokenizer = Tokenizer.from_bytes(model_proto, str(output / MODEL_NAME))
    _warn_if_large(tokenizer, sample, note)
    with storage.commit_directory(output, "tokenizer") as draft:
        draft.write(VOCAB_NAME, vocab_text(tokenizer))
        for name, content in hugging_face_files(tokenizer).items():
            draft.write(name, content)
        draft.details = {
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
            "num_documents": sample.num_documents,
            "num_lines": sample.num_lines,
            "num_sampled_lines": len(sample.lines),
            "num_sampled_bytes": sample.num_bytes,
            "options": {
                "character_coverage": character_coverage,
                "max_input_bytes": max_input_bytes,
                "seed": seed,
                **({"special": list(special)} if special else {}),
            },
        }
    return tokenizer


def sample_lines(texts: Iterable[str], max_bytes: int, seed: int) -> Sample:
    """All lines of `texts` in order, or a random sample of them that fits into `max_bytes`.

    Each line gets a random key, and the lines with the smallest keys are kept (Vitter's reservoir, counted in bytes).
    """
    keys = random.Random(seed)
    largest_first: list[tuple[float, int, str]] = []
    num_bytes = num_documents = num_lines = 0
    for text in texts:
        num_documents += 1
        for line in _lines_of(text, num_documents):
            heapq.heappush(largest_first, (-keys.random(), num_lines, line))
            num_lines += 1
            num_bytes += len(line.encode())
            while num_bytes > max_bytes:
                num_bytes -= len(heapq.heappop(largest_first)[2].encode())
    lines = [line for _, _, line in sorted(largest_first, key=lambda entry: entry[1])]
    return Sample(lines, num_documents, num_lines, num_bytes)


def train_model(
    lines: list[str], vocab_size: int, character_coverage: float = 1.0, special: Sequence[str] = ()
) -> bytes:
    """The bytes of a `.model` file with `special` as control pieces.

    Raises InputError if `lines` do not allow a vocabulary of that size.
    """
    if not lines:
        raise InputError("there is no text to train a tokenizer on; give files with text in them")
    if character_coverage < LEAST_COVERAGE_OF_SENTENCEPIECE:
        lines, character_coverage = split_at_rare_characters(lines, character_coverage), 1.0
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size - len(special),
            character_coverage=character_coverage,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            unk_surface=" \u2047 ",
            max_sentence_length=MAX_LINE_BYTES,
            # The model records the number of threads, so a choice by machine would change its bytes.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(str(error), vocab_size, len(special)) from None
    # The special pieces come last: llama2.c hard-codes the ids of bytes, which SentencePiece would shift.
    return with_reserved(model.getvalue(), vocab_size, special) if special else model.getvalue()


def split_at_rare_characters(lines: Iterable[str], coverage: float) -> list[str]:
    """The parts of `lines` between rare characters.

    Common are the characters that make up `coverage` of the text, the commonest first. SentencePiece refuses a
    coverage below 0.98. A tokenizer that never saw a character encodes it as bytes.
    """
    lines = list(lines)
    counts = Counter(character for line in lines for character in line)
    # The order of equal counts must not depend on the order of the lines.
    commonest = sorted(counts, key=lambda character: (-counts[character], character))
    covered = accumulate(counts[character] for character in commonest)
    num_kept = next(number for number, sum_ in enumerate(covered, 1) if sum_ >= coverage * counts.total())
    separators = dict.fromkeys(map(ord, commonest[num_kept:]), "\n")
    return [part for line in lines for part in line.translate(separators).split("\n") if part]


def _lines_of(text: str, document_number: int) -> Iterator[str]:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"document {document_number} has the lone surrogate U+{ord(text[error.start]):04X} at character "
            f"{error.start}, which is not text; remove it"
        ) from None
    # A character has at most 4 bytes in UTF-8.
    max_characters = MAX_LINE_BYTES // 4
    for line in text.replace(_RESERVED, " ").split("\n"):
        if line.strip():
            yield from (line[start : start + max_characters] for start in range(0, len(line), max_characters))


def _warn_if_large(tokenizer: Tokenizer, sample: Sample, note: Note) -> None:
    """Notes a vocabulary whose tokens occur fewer than `LEAST_OCCURRENCES` times each in the text, on average."""
    if sample.num_bytes >= tokenizer.vocab_size * LEAST_OCCURRENCES * MOST_BYTES_PER_TOKEN:
        return
    num_tokens = sum(len(tokenizer.encode(line, bos=False)) for line in sample.lines)
    occurrences = num_tokens / tokenizer.vocab_size
    if occurrences >= LEAST_OCCURRENCES:
        return
    smallest = NUM_META_PIECES + len(set(SPACE).union(*sample.lines) - {" "})
    fitting = max(num_tokens // LEAST_OCCURRENCES, smallest)
    advice = f"give more text, or take about {fitting:,} tokens" if fitting < tokenizer.vocab_size else "give more text"
    note(
        f"{tokenizer.vocab_size:,} tokens are many for this text: it has {num_tokens:,} tokens, so each occurs "
        f"{occurrences:.1f} times on average, too seldom for a model to learn; {advice}"
    )


def _check_options(
    vocab_size: int, character_coverage: float, max_input_bytes: int, special: Sequence[str] = ()
) -> None:
    num_fixed = NUM_META_PIECES + len(special)
    if not num_fixed < vocab_size <= VOCAB_LIMIT:
        raise UsageError(
            f"vocab_size is {vocab_size}; it can be {num_fixed + 1} to {VOCAB_LIMIT}, "
            f"because {num_fixed} ids are bytes and control tokens",
            parameter="vocab_size",
        )
    if not LEAST_COVERAGE <= character_coverage <= 1:
        name = "character_coverage"
        raise UsageError(f"{name} is {character_coverage}; it can be {LEAST_COVERAGE} to 1", parameter=name)
    if max_input_bytes <= 0:
        raise UsageError(f"max_input_bytes is {max_input_bytes}; at least 1 is needed", parameter="max_input_bytes")
    _check_special(special)


def _check_special(special: Sequence[str]) -> None:
    """Raises UsageError for a piece that exists, is repeated, or is not plain text."""
    taken = {"<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))}
    for text in special:
        if text in taken:
            raise UsageError(f"special: the piece {text!r} exists already; leave it out", parameter="special")
        if (
            len(text) < 2
            or len(text) > MAX_SPECIAL_CHARACTERS
            or not text.isprintable()
            or SPACE in text
            or " " in text
        ):
            raise UsageError(
                f"special: the piece {text!r:.60} should be 2 to {MAX_SPECIAL_CHARACTERS} printable characters, "
                "without spaces and ▁",
                parameter="special",
            )
        taken.add(text)


def _explain(message: str, vocab_size: int, num_special: int) -> InputError:
    """SentencePiece's error as an InputError that says what to do."""
    if match := re.search(r"value <= (\d+)", message):
        largest = int(match[1]) + num_special
        return InputError(
            f"the text is too small for a vocabulary of {vocab_size}: the largest it allows is {largest}",
            hint=f"use `vocab_size={largest}` or less, or give more text",
        )
    if match := re.search(r"required_chars\. \d+ vs (\d+)", message):
        smallest = int(match[1]) + num_special
        return InputError(
            f"the text has too many different characters for a vocabulary of {vocab_size}: with bytes and control "
            f"tokens they are {smallest} ids",
            hint=f"use `vocab_size={smallest}` or more, or a smaller `character_coverage`",
        )
    if "sentences_.empty()" in message:
        return InputError("there is no usable text to train a tokenizer on; give files with text in them")
    return InputError(f"SentencePiece cannot train on this text: {' '.join(message.split())}")
