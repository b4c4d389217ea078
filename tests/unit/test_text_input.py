"""Every source gives the same text; invalid UTF-8 is reported with its place."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.errors import InputError
from tinyllm.text_input import decode, encodable, read_argument, read_file, read_standard_input

WINDOWS = b"\xef\xbb\xbfZo\xc3\xab saw\r\n\r\na fox.\rThe end.\r\n"
PLAIN = "Zoë saw\n\na fox.\nThe end."


def test_file_standard_input_and_argument_give_the_same_text(tmp_path: Path, pipe_in: Callable[[bytes], None]) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(WINDOWS)
    pipe_in(WINDOWS)
    assert read_file(path) == read_standard_input() == PLAIN
    assert read_argument(WINDOWS.decode().removesuffix("\r\n"), "the prompt") == PLAIN


def test_one_newline_ends_the_last_line_and_more_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content, expected in ((b"a", "a"), (b"a\n", "a"), (b"a\n\n", "a\n"), (b"a\r\n\r\n", "a\n"), (b"", "")):
        path.write_bytes(content)
        assert read_file(path) == expected


def test_a_byte_order_mark_inside_a_text_stays() -> None:
    assert decode("\ufeffa\ufeff".encode(), "a.txt") == "a\ufeff"


def test_lone_surrogates_are_decoded_as_utf8() -> None:
    """The argument `Zoë` as Python passes it under LC_ALL=C."""
    argument = "Zoë".encode().decode("ascii", "surrogateescape")
    assert argument != "Zoë"
    assert read_argument(argument, "the prompt") == "Zoë"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", r"a\.txt is not UTF-8 at line 1, byte 0 \(0xff, invalid start byte\); convert"),
        (b"a\n\xc3\xabx\xe2\x98", r"at line 2, byte 5 \(0xe2, unexpected end of data\)"),
        ("hello".encode("utf-16"), "byte 0 .*begins like UTF-16; .*iconv -f UTF-16"),
    ],
)
def test_invalid_utf8_names_line_and_byte(
    content: bytes, message: str, tmp_path: Path, pipe_in: Callable[[bytes], None]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_file(path)
    pipe_in(content)
    with pytest.raises(InputError, match=message.replace(r"a\.txt", "standard input")):
        read_standard_input()
    with pytest.raises(InputError, match=message.replace(r"a\.txt", "the prompt")):
        read_argument(content.decode("utf-8", "surrogateescape"), "the prompt")


def test_unreadable_files_give_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"none\.txt does not exist"):
        read_file(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot read .*: Is a directory|Permission denied"):
        read_file(tmp_path)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="there is no standard input"):
        read_standard_input()
    with pytest.raises(InputError, match=r"the prompt has half a character, U\+D800, at character 1"):
        read_argument("a\ud800", "the prompt")


def test_a_limit_counts_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("ä".encode() * 5)
    assert read_file(path, 10) == "ä" * 5
    with pytest.raises(InputError, match=r"a\.txt has more than 9 bytes"):
        read_file(path, 9)


def test_names_of_any_bytes_can_be_written() -> None:
    name = Path(b"r\xff \xc3\xab".decode("utf-8", "surrogateescape"))
    assert encodable(name).encode() == b"r\\udcff \xc3\xab"
