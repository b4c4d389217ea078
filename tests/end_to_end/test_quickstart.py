"""The first hour of docs/quickstart.md, command by command, in an empty folder."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from public_sessions import session_of_document

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "quickstart.md"
PRINTED_TIME, TIME_OF_TEST = "--minutes 5", "--minutes 0.15"
"""The one change to the commands: a model of a few updates shows that they work together."""

Call = Callable[..., tuple[int, str, str]]


def typed_commands(text: str) -> Iterator[tuple[str, str]]:
    """Each line after `$`, and the lines below it: the output as the page shows it."""
    for found in re.finditer(r"^    \$ (.+)\n((?:    (?!\$ ).*\n)*)", text, re.MULTILINE):
        yield found[1], found[2]


def arguments_and_input(command: str) -> tuple[list[str], str]:
    """The arguments of `tinyllm ...`; the standard input of `echo TEXT | tinyllm ...`."""
    words = shlex.split(command)
    if words[0] == "echo":
        assert words[2:4] == ["|", "tinyllm"], command
        return words[4:], words[1] + "\n"
    assert words[0] == "tinyllm", command
    return words[1:], ""


def is_the_same_everywhere(command: str) -> bool:
    """Whether the output depends neither on the machine's speed nor on the model that it trained."""
    return "fit" not in command.split() and "runs/mine" not in command


def words_of(text: str) -> str:
    """The text with one space between words: a terminal and the page break lines at other places."""
    return " ".join(text.split())


@pytest.mark.slow
def test_first_hour_works_as_printed(call_tinyllm: Call) -> None:
    """The output is compared too where every machine prints the same."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.count(PRINTED_TIME) == 2
    num_compared = 0
    for command, shown in typed_commands(text.replace(PRINTED_TIME, TIME_OF_TEST)):
        arguments, stdin = arguments_and_input(command)
        code, out, err = call_tinyllm(*arguments, stdin=stdin)
        assert code == 0, f"{command}: {err}"
        assert out.strip(), command
        if shown and is_the_same_everywhere(command):
            assert words_of(shown) in words_of(err + out), command
            num_compared += 1
    assert num_compared == 2
    assert Path("mine.gguf").read_bytes()[:4] == b"GGUF"
    run_python_session()


def run_python_session() -> None:
    """Runs the page's Python; its results depend on the trained model, so only errors count."""
    session = session_of_document(DOCUMENT)
    assert len(session.examples) > 4
    names: dict[str, object] = {}
    for example in session.examples:
        exec(compile(example.source, DOCUMENT.name, "single"), names)


def test_every_stage_is_in_the_first_hour() -> None:
    commands = [arguments_and_input(command)[0][0] for command, _ in typed_commands(DOCUMENT.read_text("utf-8"))]
    assert set(commands) == {"generate", "data", "fit", "score", "evaluate", "settings", "export"}
