"""The library names parameters; only the command line and the scripts name flags."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinyllm.cli.app import COMMANDS
from tinyllm.cli.flags import CALLS, FLAGS, in_flags
from tinyllm.errors import ArtifactError, ConfigError, InputError, TinyllmError, UsageError

SOURCE = Path(__file__).parent.parent.parent / "src" / "tinyllm"
SPEAKERS = ("cli", "course")
"""Rooms that print flags: the command line and the scripts."""
OTHER_PROGRAMS = ("--version", "`llama-quantize --allow-requantize IN OUT F16`")
"""Flags of a C++ compiler and of llama.cpp."""


def library_texts() -> Iterator[tuple[Path, str]]:
    """Every string literal of the library's rooms, docstrings left out."""
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE).parts[0] in SPEAKERS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                yield path, node.value


def test_no_text_of_the_library_names_a_flag() -> None:
    found = []
    for path, text in library_texts():
        for other in OTHER_PROGRAMS:
            text = text.replace(other, "")
        if re.search(r"(?<![\w-])--[a-z]", text):
            found.append(f"{path.relative_to(SOURCE)}: {text}")
    assert found == []


def test_no_text_of_the_library_names_a_command() -> None:
    """A hint names a function, and cli/flags.py its command."""
    commands = re.compile(rf"\btinyllm ({'|'.join({name.split()[0] for name in COMMANDS})})\b")
    found = [f"{path.relative_to(SOURCE)}: {text}" for path, text in library_texts() if commands.search(text)]
    assert found == ["corpus/own_outputs.py: tinyllm fit"], "the kind of a manifest"


def test_every_parameter_of_a_hint_has_a_flag() -> None:
    """A hint's literals hold whole expressions, or their beginning where a value is filled in."""
    known = FLAGS.keys() | CALLS.keys()
    for path, text in library_texts():
        for name in re.findall(r"`([a-z_]+)(?:`|=\w*`|=$|\()", text):
            assert name in known, f"{path}: `{name}` is not in cli/flags.py"


@pytest.mark.parametrize(
    ("error", "python", "command_line"),
    [
        (
            ArtifactError("a`b`.txt exists", hint="replace it with `overwrite=True`"),
            "a`b`.txt exists; replace it with `overwrite=True`",
            "a`b`.txt exists; replace it with --overwrite",
        ),
        (
            UsageError("device cuda: there is none", parameter="device", hint="use `device=cpu` or auto"),
            "device cuda: there is none; use `device=cpu` or auto",
            "--device cuda: there is none; use --device cpu or auto",
        ),
        (
            UsageError("max_slots is 0", parameter="max_slots"),
            "max_slots is 0",
            "--max-slots is 0",
        ),
        (
            ConfigError("training.batch_size is 0", parameter="training.batch_size"),
            "training.batch_size is 0",
            "--training.batch_size is 0",
        ),
        (
            ConfigError("stop[0]: a stop string is empty", parameter="stop[0]"),
            "stop[0]: a stop string is empty",
            "--stop: a stop string is empty",
        ),
        (
            InputError("no shards", hint="run `prepare(a, b.txt, tokenizer=t, output=s)`, or `resume=True`"),
            "no shards; run `prepare(a, b.txt, tokenizer=t, output=s)`, or `resume=True`",
            "no shards; run tinyllm prepare a, b.txt --tokenizer t -o s, or --resume auto",
        ),
        (
            InputError("it stopped", hint="go on with: `train(data=s, out=runs/a, resume=True)`"),
            "it stopped; go on with: `train(data=s, out=runs/a, resume=True)`",
            "it stopped; go on with: tinyllm train --data s --out runs/a --resume auto",
        ),
        (
            UsageError("it broke", hint="choose `training.attention=explicit`, in `other words`"),
            "it broke; choose `training.attention=explicit`, in `other words`",
            "it broke; choose --training.attention explicit, in `other words`",
        ),
    ],
)
def test_parameters_become_flags(error: TinyllmError, python: str, command_line: str) -> None:
    assert str(error) == python
    assert in_flags(error) == command_line
    error.reword("another line")
    assert (str(error), in_flags(error)) == ("another line", "another line")
