"""Reads and writes labelled sentences, one a line: `label ||| text`, the format of the course's data.

A label is a number from 0, or a name from a JSON file. The whole file is checked before its examples are used.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyllm.addresses import opened_address
from tinyllm.errors import FormatError, InputError
from tinyllm.storage.remote.streams import open_remote
from tinyllm.text_input import decode

SEPARATOR = " ||| "
LABEL_LIMIT = 1000
NAMES_LIMIT_BYTES = 2**20


@dataclass(frozen=True)
class Example:
    """One sentence."""

    text: str
    label: int
    """Index of the label in the list of label names, from 0."""


def read_examples(path: Path, label_names: Sequence[str] | None = None) -> list[Example]:
    """The examples of a file, with labels as numbers or as one of `label_names`.

    Raises InputError for a file that is missing or empty, FormatError naming the first line that is malformed.
    """
    return parse_examples(read_bytes(path), str(path), label_names)


def parse_examples(content: bytes, where: str, label_names: Sequence[str] | None = None) -> list[Example]:
    """The examples in `content`; `where` names the file in messages. Raises as `read_examples` does."""
    lines = _split_lines(content, where)
    return [_parse_example(line, label_names, f"{where}, line {number}") for number, line in enumerate(lines, start=1)]


def parse_sentences(content: bytes, where: str, label_names: Sequence[str]) -> tuple[list[str], list[int] | None]:
    """The sentences of `content`, one a line, and their labels; None if the first line has no label.

    If the first line has a label, every line needs one. Raises as `read_examples` does.
    """
    lines = _split_lines(content, where)
    if SEPARATOR in lines[0]:
        examples = parse_examples(content, where, label_names)
        return [example.text for example in examples], [example.label for example in examples]
    return [_checked_text(line.strip(), f"{where}, line {number}") for number, line in enumerate(lines, start=1)], None


def read_label_names(path: Path) -> list[str]:
    """The names of labels 0, 1, ...: a JSON list, or an object such as {"0": "bad", "1": "good"}.

    Raises InputError for a missing file, FormatError for anything else that is not two or more different names.
    """
    content = read_bytes(path)
    try:
        names = json.loads(content) if len(content) <= NAMES_LIMIT_BYTES else None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON: {error}") from None
    if isinstance(names, dict):
        names = [names.get(str(label)) for label in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise FormatError(f'{path} holds no label names; expected a list such as ["bad", "good"]')
    if not 2 <= len(set(names)) == len(names) <= LABEL_LIMIT:
        raise FormatError(f"{path} has {len(names)} names; expected 2 to {LABEL_LIMIT}, each of them once")
    return names


def number_names(examples: Sequence[Example], where: str) -> list[str]:
    """The label numbers as names. Raises InputError if a number below the largest never occurs.

    A gap is more likely a mistake than a class, and no model can learn a class without examples.
    """
    found = {example.label for example in examples}
    missing = next((label for label in range(max(found) + 1) if label not in found), None)
    if missing is not None or len(found) < 2:
        what = "all lines have one label" if missing is None else f"label {missing} never occurs, but {max(found)} does"
        raise InputError(f"{where}: {what}", hint="number the labels from 0, or name them with `label_names`")
    return [str(label) for label in range(len(found))]


def majority_label(examples: Sequence[Example]) -> int:
    """The most frequent label; the lowest one on a tie."""
    counts = Counter(example.label for example in examples)
    return max(sorted(counts), key=lambda label: counts[label])


def format_predictions(labels: Sequence[int | str], texts: Sequence[str]) -> str:
    """Lines `prediction ||| text`, with the numbers or the names of the labels."""
    return "".join(f"{label}{SEPARATOR}{text}\n" for label, text in zip(labels, texts, strict=True))


def read_bytes(path: Path) -> bytes:
    """The content of a file, or of an object at an address. Raises InputError where it cannot be read."""
    if (place := opened_address(path)) is not None:
        with open_remote(place) as file:
            return file.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _split_lines(content: bytes, where: str) -> list[str]:
    """The lines of a file. Only newlines end a line, not the other line separators of Unicode."""
    lines = decode(content, where).removesuffix("\n").split("\n")
    if not any(line.strip() for line in lines):
        raise InputError(f"{where} is empty; expected lines such as: 3{SEPARATOR}a lovely film")
    return lines


def _parse_example(line: str, label_names: Sequence[str] | None, where: str) -> Example:
    label, separator, text = line.partition(SEPARATOR)
    if not separator:
        raise FormatError(
            f"{where} is {_quoted(line)}; expected label{SEPARATOR}text, such as: 3{SEPARATOR}a lovely film"
        )
    return Example(_checked_text(text.strip(), where), _parse_label(label.strip(), label_names, where))


def _parse_label(label: str, label_names: Sequence[str] | None, where: str) -> int:
    """The index of the label. Digits are always a number, even if a label's name consists of digits."""
    # isdigit alone accepts ² and the digits of every script.
    if not (label.isascii() and label.isdigit() and len(label) <= len(str(LABEL_LIMIT))):
        if label_names is None:
            raise FormatError(f"{where}: label {_quoted(label)} is not a number from 0")
        if label not in label_names:
            raise FormatError(
                f"{where}: label {_quoted(label)} is neither a number from 0 nor one of {', '.join(label_names)[:200]}"
            )
        return label_names.index(label)
    limit = LABEL_LIMIT if label_names is None else len(label_names)
    if int(label) >= limit:
        raise FormatError(f"{where}: label {label} is unknown; there are {limit} labels, 0 to {limit - 1}")
    return int(label)


def _checked_text(text: str, where: str) -> str:
    if not text:
        raise FormatError(f"{where} has no text; every line holds one sentence")
    return text


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
