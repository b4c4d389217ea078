"""`tinyllm completion` in an empty home directory: what it writes, and that the shell can read it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.cli.app import COMMANDS

Call = Callable[..., tuple[int, str, str]]
FILES = {
    "bash": {".bashrc", ".local/share/bash-completion/completions/tinyllm"},
    "zsh": {".zshrc", ".zsh/completions/_cyclopts_tinyllm"},
    "fish": {".config/fish/completions/tinyllm.fish"},
}
STARTUP = "export EDITOR=vi  # café\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    for name in ("ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)
    return folder


def files_in(home: Path) -> dict[str, bytes]:
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shell", FILES)
def test_the_script_and_one_line_are_written_once(call_tinyllm: Call, home: Path, shell: str) -> None:
    for name in (".bashrc", ".zshrc"):
        if name in FILES[shell]:
            (home / name).write_text(STARTUP, encoding="utf-8")
    code, out, err = call_tinyllm("completion", shell)
    assert (code, out) == (0, "")
    first = files_in(home)
    assert set(first) == FILES[shell], "nothing else is touched"
    for name in first:
        assert Path(name).name in err, "each file is named"
        if name in (".bashrc", ".zshrc"):
            text = first[name].decode()
            assert STARTUP in text
            assert len(text.splitlines()) == 3
    assert call_tinyllm("completion", shell)[0] == 0
    assert files_in(home) == first


@pytest.mark.parametrize("shell", FILES)
def test_the_script_has_every_command_and_its_shell_reads_it(call_tinyllm: Call, home: Path, shell: str) -> None:
    call_tinyllm("completion", shell)
    (name,) = [name for name in FILES[shell] if "completions" in name]
    script = (home / name).read_text(encoding="utf-8")
    for command in COMMANDS:
        assert all(word in script for word in command.split()), command
    for flag in ("validation-fraction", "num-samples", "search"):
        assert flag in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n", str(home / name)], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [("tinyllm sco", "score"), ("tinyllm settings --se", "--search"), ("tinyllm tokenizer cou", "count")],
)
def test_bash_completes_the_line(call_tinyllm: Call, home: Path, line: str, expected: str) -> None:
    """The function that Tab calls, with the words of a line."""
    call_tinyllm("completion", "bash")
    words = line.split()
    program = (
        f"source {home}/.bashrc; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; _tinyllm tinyllm {words[-1]} {words[-2]}; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", program], check=True, capture_output=True, text=True)
    assert [word.strip() for word in done.stdout.split()] == [expected], done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_names_files_where_an_argument_is_a_text(call_tinyllm: Call, home: Path) -> None:
    """`tinyllm fit my-te` and Tab; without the option, a text has no completion."""
    call_tinyllm("completion", "bash")
    found = subprocess.run(
        ["bash", "--norc", "-c", f"source {home}/.bashrc; complete -p tinyllm"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "-o default" in found.stdout


def test_an_unknown_shell_is_one_line(call_tinyllm: Call, home: Path) -> None:
    code, out, err = call_tinyllm("completion", "tcsh")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert files_in(home) == {}


def test_a_shell_that_has_no_script_is_named(call_tinyllm: Call, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.cli.completion.detect_shell", lambda: "powershell")
    assert call_tinyllm("completion")[2] == "tinyllm: the shell is powershell; name one of bash, zsh, fish\n"
    monkeypatch.setattr("tinyllm.cli.completion.detect_shell", lambda: "fish")
    assert call_tinyllm("completion")[0] == 0
    assert set(files_in(home)) == FILES["fish"]
