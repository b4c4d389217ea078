"""Files of tasks are read, and each mistake is named with file, line and field."""

import json
from pathlib import Path

import pytest

from tinyllm.errors import FormatError, InputError
from tinyllm.evaluation.minimal_pairs import MinimalPair
from tinyllm.evaluation.tasks import Cloze, MultipleChoice, read_tasks


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def test_all_kinds_are_read_from_one_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mixed.jsonl",
        {"good": "They sleep.", "bad": "They sleeps.", "group": "agreement", "id": 7},
        {"sentence_good": "a", "sentence_bad": "b", "UID": "blimp"},
        {"context": "The sky is", "choices": ["blue", "loud"], "answer": 1},
        {"context": "The sky is\n", "choices": ["blue", " loud"], "answer": " loud"},
        {"context": "床前明月", "answer": "光", "delimiter": ""},
        {"context": "", "answer": "Once"},
    )
    assert read_tasks(path) == [
        MinimalPair("They sleep.", "They sleeps.", "agreement"),
        MinimalPair("a", "b", "blimp"),
        MultipleChoice("The sky is", (" blue", " loud"), 1, "mixed"),
        MultipleChoice("The sky is\n", ("blue", " loud"), 1, "mixed"),
        Cloze("床前明月", "光", "mixed"),
        Cloze("", "Once", "mixed"),
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("text", r"tasks.jsonl, line 2: expected an object with good and bad; context, choices and answer; or context"),
        ({"text": "a"}, r"line 2 is no task: it needs the fields good and bad; .*; fields seen: 'text'"),
        ({}, r"fields seen: none"),
        ({"good": "a"}, r"line 2: field bad is missing; give a text in quotes"),
        ({"good": "a", "bad": 3}, r"line 2: field bad is 3, not a text"),
        ({"good": "a", "bad": " "}, r"line 2: field bad is empty"),
        ({"good": "a", "bad": "a"}, r"line 2: good and bad are the same text"),
        ({"good": "a", "bad": "\ud83d"}, r"line 2: field bad has \\ud83d, half a character"),
        ({"context": "a"}, r"line 2: field answer is missing"),
        ({"context": "a", "choices": ["b"], "answer": 0}, r"line 2: field choices is \['b'\]; give a list of two"),
        ({"context": "a", "choices": ["b", ""], "answer": 0}, r"line 2: field choices is empty"),
        ({"context": "a", "choices": ["b", "c"], "answer": 2}, r"field answer is 2; .* its number from 0 to 1"),
        ({"context": "a", "choices": ["b", "c"], "answer": "d"}, r"line 2: field answer is 'd'; give one of the"),
        ({"context": "a", "choices": ["b", "c"], "answer": True}, r"line 2: field answer is True"),
        ({"context": "a", "choices": ["b", "c"]}, r"line 2: field answer is None"),
    ],
)
def test_a_mistake_is_named(record: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tasks.jsonl", {"good": "a", "bad": "b"}, record)
    with pytest.raises(FormatError, match=message):
        read_tasks(path)


def test_files_without_tasks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match=r"empty.jsonl has no tasks; write one JSON record a line: good and bad"):
        read_tasks(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        read_tasks(tmp_path / "missing.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"good": "a", "bad": "b"}\n{"good": }')
    with pytest.raises(FormatError, match=r"broken.jsonl, line 2, column 10: not JSON"):
        read_tasks(tmp_path / "broken.jsonl")
