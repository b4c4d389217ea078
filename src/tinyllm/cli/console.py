"""How commands speak: results on stdout, everything else on stderr. What needs rich is in `progress`."""

import re
import sys

from cyclopts import Parameter

from tinyllm.errors import UsageError


def refuse_flag(_type: object, value: str) -> None:
    """Raises UsageError where an argument is a flag that the command does not have."""
    if re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", value):
        raise UsageError(f"unknown option {value}; the command's options: --help")


TEXT_OR_DASH = Parameter(allow_leading_hyphen=True, validator=refuse_flag)
"""For arguments of free text: cyclopts takes `-` and `- Hello` for unknown flags otherwise."""


def note(message: str) -> None:
    """One line on stderr for the person at the keyboard; never part of a command's result."""
    print(message, file=sys.stderr, flush=True)
