"""Calls a program's `main` in the process of the test."""

from collections.abc import Callable, Sequence

import pytest


def call_program(
    capsys: pytest.CaptureFixture[str], program: Callable[[Sequence[str]], object], *arguments: object
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `program` with `arguments`."""
    with pytest.raises(SystemExit) as ended:
        program([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err
