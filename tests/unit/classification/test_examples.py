"""Files of sentences: valid lines, and one error line for each kind of invalid line."""

from pathlib import Path

import pytest

from tinyllm.classification.examples import (
    Example,
    format_predictions,
    majority_label,
    number_names,
    parse_examples,
    parse_sentences,
    read_examples,
    read_label_names,
)
from tinyllm.errors import FormatError, InputError


def test_lines_are_label_and_text() -> None:
    content = "\ufeff3 ||| a lovely film\r\n0 ||| dull ||| very\n10 ||| line\u2028separator\n".encode()
    assert parse_examples(content, "f", [f"name {label}" for label in range(11)]) == [
        Example("a lovely film", 3),
        Example("dull ||| very", 0),
        Example("line\u2028separator", 10),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_the_same_with_every_newline(newline: str) -> None:
    content = f"1 ||| good{newline}0 ||| bad{newline}".encode()
    assert parse_examples(content, "f") == [Example("good", 1), Example("bad", 0)]
    assert parse_sentences(f"\ufeffgood{newline}bad".encode(), "f", ("0", "1")) == (["good", "bad"], None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 ||| good\nno label here\n", "f, line 2 is 'no label here'; expected label ||| text"),
        (b"1 ||| good\n\n1 ||| good\n", "f, line 2 is ''; expected label ||| text"),
        (b"fine ||| good\n", "f, line 1: label 'fine' is neither a number from 0 nor one of bad, good"),
        (b"-1 ||| good\n", "f, line 1: label '-1' is neither a number from 0 nor"),
        ("² ||| good\n".encode(), "f, line 1: label '²' is neither a number from 0 nor"),
        (b"1 ||| good\n" * 6 + b"2 ||| fine\n", "f, line 7: label 2 is unknown; there are 2 labels, 0 to 1"),
        (
            b"9" * 5000 + b" ||| good\n",
            "f, line 1: label '9999999999999999999999999999999999999999…' is neither a number",
        ),
        (b"1 |||\n", "f, line 1 is '1 |||'; expected label ||| text"),
        (b"1 |||  \r\n", "f, line 1 has no text"),
        (b"1 ||| good\n1 ||| caf\xe9\n", "f is not UTF-8 at line 2, byte 20 (0xe9"),
        (b"", "f is empty; expected lines such as: 3 ||| a lovely film"),
        (b"\n \n", "f is empty"),
    ],
)
def test_errors_name_the_line(content: bytes, message: str) -> None:
    with pytest.raises((FormatError, InputError)) as raised:
        parse_examples(content, "f", ["bad", "good"])
    assert message in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read .*none.txt: No such file"):
        read_examples(tmp_path / "none.txt")


def test_predictions_are_read_back() -> None:
    lines = format_predictions([2, 0], ["good ||| or not", "bad"])
    assert parse_examples(lines.encode(), "f") == [Example("good ||| or not", 2), Example("bad", 0)]


def test_names_are_read_back_as_labels() -> None:
    names = ["bad", "very good", "1"]
    lines = format_predictions([names[1], names[0]], ["a film", "another"])
    assert parse_examples(lines.encode(), "f", names) == [Example("a film", 1), Example("another", 0)]
    assert parse_examples(b"1 ||| digits are a number", "f", names) == [Example("digits are a number", 1)]
    with pytest.raises(FormatError, match="label 'bad' is not a number from 0"):
        parse_examples(b"bad ||| a film", "f")


def test_either_all_sentences_have_labels_or_none() -> None:
    assert parse_sentences(b"good\nbad\n", "f", ["bad", "good"]) == (["good", "bad"], None)
    assert parse_sentences(b"1 ||| good\n0 ||| bad", "f", ["bad", "good"]) == (["good", "bad"], [1, 0])
    with pytest.raises(FormatError, match="line 2 is 'bad'; expected label"):
        parse_sentences(b"1 ||| good\nbad\n", "f", ["bad", "good"])
    with pytest.raises(FormatError, match="line 2 has no text"):
        parse_sentences(b"good\n\nbad\n", "f", ["bad", "good"])


@pytest.mark.parametrize("content", ['["bad", "good"]', '{"1": "good", "0": "bad"}'])
def test_label_names_are_a_list_or_a_numbered_object(content: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(content)
    assert read_label_names(tmp_path / "names.json") == ["bad", "good"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["bad", ', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('"bad"', "holds no label names"),
        ('["bad", 3]', "holds no label names"),
        ('{"good": 1, "bad": 0}', "holds no label names"),
        ('["bad", " "]', "holds no label names"),
        ('["bad"]', "has 1 names; expected 2 to 1000"),
        ('["bad", "bad"]', "has 2 names; expected 2 to 1000, each of them once"),
    ],
)
def test_invalid_label_names_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(content)
    with pytest.raises(FormatError, match=message):
        read_label_names(tmp_path / "names.json")


def test_labels_without_names_are_named_by_their_numbers() -> None:
    assert number_names([Example("a", 2), Example("b", 0), Example("c", 1)], "f") == ["0", "1", "2"]
    with pytest.raises(InputError, match="f: label 1 never occurs, but 2 does"):
        number_names([Example("a", 2), Example("b", 0)], "f")
    with pytest.raises(InputError, match="f: all lines have one label"):
        number_names([Example("a", 0)], "f")


def test_the_majority_is_the_most_frequent_label_and_on_a_tie_the_lowest() -> None:
    assert majority_label([Example("a", label) for label in (3, 1, 1, 3, 2)]) == 1
