"""The house as the documents describe it: public names, cheap imports, one writer, few pickles, links that hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinyllm
from tinyllm.cli.app import COMMANDS, build_app

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
DOCUMENTS = [
    *sorted(ROOT.glob("README*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks" / "log").glob("*.md")),
]

NAMES_OF_USERS = ("RUN/config.toml", "llama2.c", "export.py", "build/", "data/", "output/", "config.toml", "file.toml")
"""Names of other projects' files, and of those that a user has or a command writes."""


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


def test_the_scheduler_loads_neither_torch_nor_a_web_framework() -> None:
    program = (
        "import sys\nimport tinyllm.serving.scheduler\n"
        "heavy = {'torch', 'fastapi', 'starlette', 'uvicorn'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_every_module_says_what_it_does() -> None:
    for path in SOURCES:
        assert path.read_text(encoding="utf-8").startswith('"""'), f"{path} has no docstring"


def test_only_storage_changes_files() -> None:
    """The promise of whole files, and of untouched foreign ones, rests on one room.

    shards/parallel.py writes messages from process to process in a temporary folder, which nobody keeps.
    """
    changing = re.compile(
        r"""open\([^)]*["'][wax]b?["']|\.write_(bytes|text)\(|\.(mkdir|rmdir|unlink|touch)\(|shutil\.(rmtree|move)"""
    )
    sources = [path for path in SOURCES if "storage" not in path.parts and path.name != "parallel.py"]
    assert [path.name for path in sources if changing.search(path.read_text("utf-8"))] == []


def test_one_module_calls_what_only_some_systems_have() -> None:
    """The fall-backs of machine/system.py are tested; a call elsewhere has none."""
    pattern = re.compile(
        r"\bimport (fcntl|msvcrt|resource|termios|pwd|grp)\b|/proc/|/sys/fs|sched_getaffinity|mallopt|renameat2|memfd"
        r"|os\.(fork|getuid|geteuid|sysconf|O_(CLOEXEC|NOFOLLOW|NONBLOCK))\b|kernel32\.dll"
    )
    users = {path.name for path in SOURCES if pattern.search(path.read_text(encoding="utf-8"))}
    assert users == {"system.py"}


def test_pickles_are_written_where_the_format_is_one() -> None:
    """The `.pt` of llama2.c, and messages between the processes of `prepare`."""
    writing = re.compile(r"\b(torch\.save|pickle\.dumps?|cPickle|joblib|shelve)\(")
    assert {path.name for path in SOURCES if writing.search(path.read_text("utf-8"))} == {
        "llama2c_pt.py",
        "parallel.py",
    }


def test_every_command_of_the_tree_can_be_called() -> None:
    for name in COMMANDS:
        app = build_app()
        assert app.parse_args([*name.split(), "--help"], exit_on_error=False, print_error=False)


def test_links_between_documents_hold() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def test_files_and_folders_in_documents_exist() -> None:
    """A name such as `step.py` or `storage/` is the end of a path in the repository."""
    folders = ("src", "tests", "benchmarks", "tools", "docs", ".github")
    paths = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    known = {f"/{path.relative_to(ROOT)}" for path in paths}
    num_names = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        names = re.findall(r"`([\w./-]+(?:\.(?:py|cpp|toml|yml)|/))`", text)
        names += [name for name in re.findall(r"^## ([\w/.]+)[: ]", text, re.MULTILINE) if re.search(r"[/.]", name)]
        for name in names:
            ending = f"/{name.rstrip('/')}"
            found = name in NAMES_OF_USERS or any(path.endswith(ending) for path in known)
            assert found, f"{document.name} names {name}, which is not there"
        num_names += len(names)
    assert num_names > 60


def test_the_page_of_benchmarks_is_short() -> None:
    """Records of trials belong in benchmarks/log/, whose README lists every file."""
    assert len((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").splitlines()) <= 120
    log = ROOT / "benchmarks" / "log"
    index = (log / "README.md").read_text(encoding="utf-8")
    for path in log.glob("*.md"):
        assert path.name == "README.md" or re.match(r"\d{4}-\d{2}-\d{2}-", path.name), f"{path.name} has no date"
        assert path.name == "README.md" or f"]({path.name})" in index, f"README.md does not list {path.name}"
