"""The session at the top of README.md prints what the page says."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
MAX_LINES = 70


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES


def test_session_prints_its_story(call_tinyllm: Callable[..., tuple[int, str, str]]) -> None:
    """On the CPU: a GPU may round, and so choose, differently."""
    session = re.search(r"^    \$ tinyllm (.+)\n((?:    .+\n)+)", README, re.MULTILINE)
    assert session is not None
    command, *arguments = shlex.split(session[1])
    code, out, _ = call_tinyllm(command, *arguments, "--device", "cpu")
    assert code == 0
    assert out.split() == session[2].split()
