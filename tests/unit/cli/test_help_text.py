"""The help of every command fits a terminal of 80 columns: paragraphs wrap there, and examples are short enough."""

from itertools import pairwise

import pytest

from tinyllm.cli.app import COMMANDS, main
from tinyllm.cli.help_text import command_help, unwrap
from tinyllm.course.run_llama import OPTIONS

TARGETS = [target for target, _ in (*COMMANDS.values(), *OPTIONS.values())]


def test_paragraphs_become_lines_and_examples_stay() -> None:
    text = "Do it.\n\nOne line\nand the next.\n\nFor example:\n\n  tinyllm a\n  tinyllm b"
    assert unwrap(text) == "Do it.\n\nOne line and the next.\n\nFor example:\n\n  tinyllm a\n  tinyllm b"


@pytest.mark.parametrize("target", TARGETS)
def test_examples_are_indented_and_fit_80_columns(target: str) -> None:
    head, _, examples = command_help(target).partition("For example:\n\n")
    assert head
    lines = examples.splitlines()
    assert lines
    for line in lines:
        assert line.startswith("  ")
        assert len(line) <= 80, line


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_of_a_paragraph_is_broken_early(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line ends before its 80 columns only if the next word does not fit there."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    head = capsys.readouterr().out.partition("For example:")[0].partition("\n\n")[2]
    for line, following in pairwise(head.splitlines()):
        if line and following:
            assert len(line.rstrip()) + 1 + len(following.split()[0]) > 80, line
