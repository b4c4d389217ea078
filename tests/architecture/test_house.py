"""The house as the documents describe it: public names, cheap imports, one writer, commands that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinyllm
from tinyllm.cli.app import COMMANDS, build_app

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_public_name_loads() -> None:
    for name in tinyllm.__all__:
        assert getattr(tinyllm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tinyllm.nothing  # noqa: B018


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["data", "--help"]])
def test_help_loads_neither_torch_nor_numba(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom tinyllm.cli.app import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'numba', 'transformers', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_every_module_says_what_it_does() -> None:
    for path in SOURCES:
        assert path.read_text(encoding="utf-8").startswith('"""'), f"{path} has no docstring"


def test_only_artifacts_opens_files_for_writing() -> None:
    """The promise of whole files rests on one module; drafts inside a commit are written by name.

    What shards/parallel.py writes are messages from process to process in a temporary folder, which nobody keeps.
    """
    writing = re.compile(r"""open\([^)]*["'][wax]b?["']|\.write_bytes\(|\.write_text\(""")
    allowed = {"storage.py", "checkpoint.py", "model_dir.py", "parallel.py"}
    found = [path.name for path in SOURCES if path.name not in allowed and writing.search(path.read_text("utf-8"))]
    assert found == []


def test_every_command_of_the_tree_can_be_called() -> None:
    for name in COMMANDS:
        app = build_app()
        assert app.parse_args([*name.split(), "--help"], exit_on_error=False, print_error=False)


def test_every_command_in_the_documents_exists() -> None:
    """Each `tinyllm ...` line of a code block names a command, and only flags that it has."""
    known = set(COMMANDS) | {name.split()[0] for name in COMMANDS}
    for path in DOCUMENTS:
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.match(r"^ {4}(?:\$ )?tinyllm ((?:[a-z]+ ?){1,2})", line)
            if match:
                words = match[1].split()
                assert words[0] in known or " ".join(words[:2]) in known, f"{path.name}: {line}"


def test_links_between_documents_hold() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"
