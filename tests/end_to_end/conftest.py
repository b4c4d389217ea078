"""Fixtures that run a command in this process and in an empty folder."""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from program_calls import call_program
from tinyllm.cli.app import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def in_empty_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Sequence[str]], object]], Call]:
    """Wraps a program's `main` in a function that returns exit code, stdout and stderr of a call."""
    monkeypatch.chdir(tmp_path)

    def prepare(program: Callable[[Sequence[str]], object]) -> Call:
        def call(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
            return call_program(capsys, program, *arguments)

        return call

    return prepare


@pytest.fixture
def call_tinyllm(in_empty_folder: Callable[[Callable[[Sequence[str]], object]], Call]) -> Call:
    """A function that runs one `tinyllm` command."""
    return in_empty_folder(main)
