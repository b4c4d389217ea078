"""Output works on every terminal, pipe and closed stream, or gives one error line."""

import io
import json
import sys
from collections.abc import Callable

import pytest

from tinyllm.cli.app import run_command
from tinyllm.cli.console import escape_controls, note, show, show_json

HOSTILE = "a\tb\n\x1b]0;title\x07\r\x7f\x9b2J ë 🦊"


class Terminal(io.TextIOWrapper):
    """A stream that reports to be a terminal."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def read_back(self) -> str:
        self.flush()
        content = self.buffer
        assert isinstance(content, io.BytesIO)
        return content.getvalue().decode(self.encoding)


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device")


def run(command: Callable[[], object]) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda _: command(), [])
    return int(ended.value.code or 0)


def test_controls_are_escaped_and_all_other_characters_stay() -> None:
    assert escape_controls(HOSTILE) == "a\tb\n\\x1b]0;title\\x07\\x0d\\x7f\\x9b2J ë 🦊"
    kept = [chr(code) for code in range(0x300) if escape_controls(chr(code)) == chr(code)]
    assert kept == [chr(code) for code in (9, 10, *range(0x20, 0x7F), *range(0xA0, 0x300))]


def test_only_a_terminal_gets_escapes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    show(HOSTILE)
    assert capsys.readouterr().out == HOSTILE + "\n"
    out, err = Terminal("utf-8"), Terminal("utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    show(HOSTILE)
    note(HOSTILE)
    assert out.read_back() == err.read_back() == escape_controls(HOSTILE) + "\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("kind", [Terminal, lambda encoding: io.TextIOWrapper(io.BytesIO(), encoding=encoding)])
def test_json_is_valid_on_every_stream(
    encoding: str, kind: Callable[[str], io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = kind(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert run(lambda: show_json({"text": HOSTILE})) == 0
    content = out.buffer
    assert isinstance(content, io.BytesIO)
    assert json.loads(content.getvalue().decode(encoding)) == {"text": HOSTILE}


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", "\\u2581On \\xeb \\U0001f98a\n"), ("cp1252", "\\u2581On ë \\U0001f98a\n")]
)
def test_characters_that_an_encoding_lacks_are_escaped(
    encoding: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = Terminal(encoding), Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def command() -> None:
        show("▁On ë 🦊")
        note("▁On ë 🦊")
        print("▁On ë 🦊")

    assert run(command) == 0
    assert out.read_back() == expected * 2
    assert err.read_back() == expected


def test_a_closed_stdout_gives_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    def command() -> None:
        show("a result")
        print("another")

    assert run(command) == 0
    assert capsys.readouterr().err == "standard output is closed: the output of this command is lost\n"


def test_a_closed_stderr_does_not_send_notes_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)

    def command() -> None:
        note("for a person")
        print("an error", file=sys.stderr)
        show("a result")

    assert run(command) == 0
    assert capsys.readouterr().out == "a result\n"


@pytest.mark.parametrize("write", [show, lambda text: print(text), lambda text: sys.stdout.write(text)])
def test_a_full_stdout_gives_one_line_and_fails(
    write: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FullOutput(Full):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", FullOutput())
    assert run(lambda: write("a result")) == 1
    assert capsys.readouterr().err == "tinyllm: standard output: No space left on device\n"
    assert sys.stdout is None, "Python would flush it again at exit"


def test_a_full_stderr_does_not_end_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", Full())

    def command() -> None:
        note("one")
        note("two")
        show("a result")

    assert run(command) == 0
    assert capsys.readouterr().out == "a result\n"
