"""Paths between a shell and the commands: `~` that no shell expands, and names in commands to copy."""

import os
import shlex
from pathlib import Path

from tinyllm.addresses import shown


def expand_home(path: Path | str) -> Path:
    """`path` with a leading `~` or `~user` expanded; an unknown user leaves it as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises for an unknown ~user)


def quoted(path: Path | str) -> str:
    """`path` as one word of a shell, for a command that the user may copy."""
    return shlex.quote(shown(path))
