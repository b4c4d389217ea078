"""Expands `~` in paths that no shell expands, such as `--out=~/x` and `FILE:~/x`."""

import os
from pathlib import Path


def expand_home(path: Path | str) -> Path:
    """`path` with a leading `~` or `~user` expanded; an unknown user leaves it as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises for an unknown ~user)
