"""Names in commands that the user may copy are one word of a shell."""

import shlex
from pathlib import Path

import pytest

from tinyllm.cli.paths import quoted


@pytest.mark.parametrize("name", ["runs/first", "my runs/a model", "it's", "a;b", "$HOME", "从前", "-o", "a\nb"])
def test_a_name_is_one_word_of_a_shell(name: str) -> None:
    assert shlex.split(f"tinyllm info {quoted(name)}") == ["tinyllm", "info", name]
    assert shlex.split(quoted(Path(name) / "model")) == [str(Path(name) / "model")]


def test_a_plain_name_stays_as_it_is_and_an_address_has_no_signature() -> None:
    assert quoted("runs/first") == "runs/first"
    assert quoted("https://example.org/a.txt?signature=x") == "https://example.org/a.txt"
