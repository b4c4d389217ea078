"""The formats of tasks: JSON Lines of minimal pairs, multiple choice and cloze, one record a line.

    {"good": "The cats sleep.", "bad": "The cats sleeps."}                     which one is likelier
    {"context": "The sky is", "choices": ["blue", "loud"], "answer": 0}        the likeliest choice after the context
    {"context": "Lily had a kite. She flew the", "answer": "kite"}             the continuation of the context

`group` names a record's row in reports. BLiMP's keys `sentence_good`, `sentence_bad` and `UID` are read too; other keys
are left alone. Context and continuation are joined by one space, unless a text has whitespace there, or by `delimiter`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinyllm import text_input
from tinyllm.corpus.json_records import read_lines
from tinyllm.errors import FormatError, InputError
from tinyllm.evaluation.minimal_pairs import MinimalPair

Record = Mapping[str, object]
SHAPES = "good and bad; context, choices and answer; or context and answer"


@dataclass(frozen=True)
class MultipleChoice:
    """A context with possible continuations."""

    context: str
    choices: tuple[str, ...]
    """Two or more continuations, each with the delimiter before it."""
    answer: int
    """Index of the right choice."""
    group: str


@dataclass(frozen=True)
class Cloze:
    """A context with its one right continuation."""

    context: str
    answer: str
    """The continuation, with the delimiter before it."""
    group: str


Task = MinimalPair | MultipleChoice | Cloze


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a JSON Lines file; the group of a record without one is the file's name.

    Raises InputError or FormatError with file, line and field for records that are no tasks.
    """
    records = read_lines(iter([text_input.read_file(path)]), str(path))
    tasks = [_parse(record, place, path.stem) for record, place in records]
    if not tasks:
        raise InputError(f"{path} has no tasks; write one JSON record a line: {SHAPES}")
    return tasks


def _parse(record: object, place: str, group: str) -> Task:
    if not isinstance(record, dict):
        raise FormatError(f"{place}: expected an object with {SHAPES}")
    fields = _Fields({_ALIASES.get(str(key), str(key)): value for key, value in record.items()}, place)
    group = fields.text("group", group)
    if "good" in fields.record or "bad" in fields.record:
        return _pair(fields, group)
    if "context" not in fields.record:
        seen = ", ".join(ascii(key)[:40] for key in list(record)[:12]) or "none"
        raise FormatError(f"{place} is no task: it needs the fields {SHAPES}; fields seen: {seen}")
    context = fields.text("context")
    delimiter = fields.text("delimiter", " ")
    if "choices" not in fields.record:
        return Cloze(context, _continuation(context, fields.filled("answer"), delimiter), group)
    return _multiple_choice(fields, context, delimiter, group)


_ALIASES = {"sentence_good": "good", "sentence_bad": "bad", "UID": "group"}


def _pair(fields: "_Fields", group: str) -> MinimalPair:
    good, bad = fields.filled("good"), fields.filled("bad")
    if good == bad:
        raise FormatError(f"{fields.place}: good and bad are the same text; one must differ")
    return MinimalPair(good, bad, group)


def _multiple_choice(fields: "_Fields", context: str, delimiter: str, group: str) -> MultipleChoice:
    choices = fields.record["choices"]
    if not isinstance(choices, list) or len(choices) < 2:
        raise FormatError(f"{fields.place}: field choices is {_short(choices)}; give a list of two texts or more")
    texts = [_Fields({"choices": choice}, fields.place).filled("choices") for choice in choices]
    answer = fields.record.get("answer")
    if isinstance(answer, str) and texts.count(answer) == 1:
        answer = texts.index(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        raise FormatError(
            f"{fields.place}: field answer is {_short(answer)}; give one of the choices, or its number from 0 to "
            f"{len(texts) - 1}"
        )
    return MultipleChoice(context, tuple(_continuation(context, text, delimiter) for text in texts), answer, group)


def _continuation(context: str, text: str, delimiter: str) -> str:
    """`text` with the delimiter before it, unless a text has whitespace there or the context is empty."""
    has_space = not context or context[-1].isspace() or text[0].isspace()
    return text if has_space else delimiter + text


class _Fields:
    """The fields of one record, with its place for messages."""

    def __init__(self, record: Record, place: str) -> None:
        self.record = record
        self.place = place

    def text(self, name: str, default: str | None = None) -> str:
        """The text of a field, or the default if it is missing. Raises FormatError for another value."""
        value = self.record.get(name, default)
        if not isinstance(value, str):
            problem = "is missing" if name not in self.record else f"is {_short(value)}, not a text"
            raise FormatError(f"{self.place}: field {name} {problem}; give a text in quotes")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            code = ord(value[error.start])
            raise FormatError(f"{self.place}: field {name} has \\u{code:04x}, half a character; remove it") from None
        return value

    def filled(self, name: str) -> str:
        """The text of a field that must not be empty."""
        value = self.text(name)
        if not value.strip():
            raise FormatError(f"{self.place}: field {name} is empty; give a text")
        return value


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
