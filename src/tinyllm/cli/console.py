"""How commands speak: results on stdout, everything else on stderr. What needs rich is in `progress`."""

import re
import sys

from cyclopts import Parameter


class UnknownOption(ValueError):
    """An argument of free text is an option that the command does not have."""

    def __init__(self, option: str) -> None:
        super().__init__(f"unknown option {option}")
        self.option = option


def refuse_flag(_type: object, value: object) -> None:
    """Raises UnknownOption where an argument is a flag that the command does not have."""
    if re.fullmatch(r"--?[A-Za-z][\w.-]*(=.*)?", str(value)):
        raise UnknownOption(str(value))


TEXT_OR_DASH = Parameter(allow_leading_hyphen=True, validator=refuse_flag)
"""For arguments of free text and `-`: by itself cyclopts takes `-` and `- Hello` for unknown flags."""


def note(message: str) -> None:
    """One line on stderr for the person at the keyboard; never part of a command's result."""
    print(message, file=sys.stderr, flush=True)
