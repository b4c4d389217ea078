"""Every command that a document, a help text or a message names exists, and so does every flag of it."""

import ast
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cyclopts import CycloptsError

from tinyllm.cli.app import COMMANDS, GROUPS, build_app
from tinyllm.config import Config

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    *sorted(ROOT.glob("README*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SOURCES = [path for folder in ("src", "benchmarks", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
SCRIPTS = [path for path in sorted((ROOT / "examples").iterdir()) if path.suffix in (".sh", ".sbatch")]
CALL = re.compile(
    r"(?P<sure>^\s*|`|: |run |\| |\$ )?"
    r"\b(?P<program>tinyllm(?= +[a-z-])|python +[\w/]+\.py|make(?= +[a-z]))(?P<rest>[^`\n]*)"
)
ENDS_BEFORE = re.compile(r"^[|#&>]|^$")
ENDS_AFTER = re.compile(r"[;,)]$|[.:]$")
FLAG = re.compile(r"^--?[A-Za-z][\w.-]*")
ALWAYS = {"--help", "-h", "--version", "--debug"}


class Call(NamedTuple):
    """A command as a text names it."""

    words: list[str]
    sure: bool
    """Whether it stands where only a command can: in code, or at the start of a line."""
    whole: bool
    """Whether it is a line of a code block or of a help text, to be typed as it stands."""
    where: str


def calls_in_document(path: Path) -> Iterator[Call]:
    """The commands in a document's code blocks and inline code."""
    content = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    blocks = re.findall(r"^ {4}(.*)$", content, re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", content.replace("\n", " "))
    for block in blocks:
        yield from calls_in(block.split("   ")[0], path.name)
    for text in inline:
        yield from (call._replace(whole=False) for call in calls_in(text, path.name))


def calls_in_source(path: Path) -> Iterator[Call]:
    """The commands in a module's docstrings, help texts and messages."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values]
            text = "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        for line in text.splitlines():
            for call in calls_in(line, f"{path.relative_to(ROOT)}:{node.lineno}"):
                if call.words[0] != "make":  # a verb of prose as well
                    yield call


def calls_in(text: str, where: str) -> Iterator[Call]:
    for found in CALL.finditer(text):
        words = found["program"].split()
        for word in split_words(found["rest"]):
            if ENDS_BEFORE.search(word):
                break
            words.append(ENDS_AFTER.sub("", word))
            if ENDS_AFTER.search(word):
                break
        sure = found["sure"]
        whole = sure is not None and not sure.strip("$| ")
        yield Call(words, sure is not None, whole, f"{where}: {text.strip()}")


def split_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quotation mark of the sentence around it
        return text.split()


def calls_in_script(path: Path) -> Iterator[Call]:
    """The commands of a shell script, each to be read whole; its comments are left out."""
    for line in re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8")).splitlines():
        if not line.startswith("#"):
            yield from (call._replace(whole=True) for call in calls_in(re.split(r" \|\|? ", line)[0], path.name))


def calls_in_makefile() -> Iterator[Call]:
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        yield from calls_in(line.replace("$(BIN)/", ""), "Makefile")


CALLS = [call for path in DOCUMENTS for call in calls_in_document(path)]
CALLS += [call for path in SCRIPTS for call in calls_in_script(path)]
CALLS += calls_in_makefile()
CALLS += [call for path in SOURCES for call in calls_in_source(path)]


def flags_of(words: list[str]) -> set[str]:
    return {found[0] for word in words if (found := FLAG.match(word))}


def command_of(call: Call) -> str | None:
    """The name in the command tree; None in a sentence that has tinyllm for its subject."""
    for name in (" ".join(call.words[1:3]), *call.words[1:2]):
        if name in COMMANDS or name in GROUPS:
            return name
    assert not call.sure or call.words[1].startswith("-"), f"no such command: {call.where}"
    return None


def known_flags(command: str) -> set[str]:
    """The flags that the command's parser has."""
    app = build_app(command.split())
    for word in command.split():
        app = app[word]
    return {name for argument in app.assemble_argument_collection() for name in argument.names}


def is_setting(flag: str) -> bool:
    """Whether `--SECTION.KEY` names a setting."""
    section, _, key = flag.removeprefix("--").partition(".")
    field = Config.model_fields.get(section)
    return field is not None and key in field.annotation.model_fields  # type: ignore[union-attr]


def test_texts_name_commands_at_all() -> None:
    """So that the tests below do not pass by finding nothing."""
    programs = [call.words[0] for call in CALLS if flags_of(call.words)]
    assert programs.count("tinyllm") > 40
    assert programs.count("python") > 15
    assert {call.where.split(":")[0] for call in CALLS} >= {path.name for path in SCRIPTS}


def test_commands_of_tinyllm_exist_with_their_flags() -> None:
    for call in CALLS:
        if call.words[0] != "tinyllm" or (command := command_of(call)) is None or command in GROUPS:
            continue
        known = known_flags(command) | ALWAYS
        for flag in flags_of(call.words):
            settings = command == "train" and "." in flag
            assert is_setting(flag) if settings else flag in known, f"tinyllm {command} has no {flag}: {call.where}"


def test_whole_commands_are_read_by_their_parsers() -> None:
    """Values too, where a text gives a command that can be typed as it stands."""
    num_read = 0
    for call in CALLS:
        words = call.words[1:]
        if call.words[0] != "tinyllm" or not call.whole or not flags_of(words) or "--help" in words:
            continue
        if any(re.fullmatch(r"[A-Z]+(-[A-Z]+)*|.*VALUE.*|\.\.\.", word) for word in words):
            continue
        try:
            build_app(words).parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"{error}: {call.where}")
        num_read += 1
    assert num_read > 25


@pytest.fixture
def printed_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Gives what `python PROGRAM ARGUMENTS --help` prints, for a program of the root."""
    monkeypatch.setenv("COLUMNS", "200")

    def print_help(program: str, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", [program, *arguments, "--help"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / program), run_name="__main__")
        return capsys.readouterr().out

    return print_help


def flags_in(text: str) -> set[str]:
    """Flags that a help text or a program's source has; `-` and `_` between words are the same."""
    return {flag.replace("_", "-") for flag in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text)}


def source_of_benchmark(path: Path) -> str:
    return path.read_text(encoding="utf-8") + (ROOT / "benchmarks" / "results.py").read_text(encoding="utf-8")


def test_programs_exist_with_their_flags(printed_help: Callable[..., str]) -> None:
    """The root's programs print their flags; those of benchmarks/ and tools/ have them in their source."""
    for call in CALLS:
        if call.words[0] != "python":
            continue
        program, *words = call.words[1:]
        path = ROOT / program
        assert path.is_file(), f"no such program: {call.where}"
        option = words[words.index("--option") + 1 :][:1] if "--option" in words else []
        asked = ["--option", *option] if option and option[0].islower() else []
        text = printed_help(program, *asked) if path.parent == ROOT else source_of_benchmark(path)
        missing = {
            flag for flag in flags_of(words) if flag.replace("_", "-") not in flags_in(text) | ALWAYS | {"--option"}
        }
        assert not missing, f"{program} has no {', '.join(missing)}: {call.where}"


def test_flags_named_alone_exist_somewhere(printed_help: Callable[..., str]) -> None:
    """Inline code in a document that begins with a flag, such as `--resume auto`."""
    known = {"--option"}.union(*map(known_flags, COMMANDS))
    for path in (ROOT / "benchmarks").glob("*.py"):
        known |= flags_in(source_of_benchmark(path))
    programs = (path for path in ROOT.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
    for path in programs:
        options = (
            [("--option", name) for name in ("generate", "prompt", "finetune")] if path.stem == "run_llama" else [()]
        )
        for option in options:
            known |= flags_in(printed_help(path.name, *option))
    for path in DOCUMENTS:
        for code in re.findall(r"`(--[a-z][^`]*)`", path.read_text(encoding="utf-8").replace("\n", " ")):
            flag = re.split(r"[ =]", code)[0]
            assert is_setting(flag) or flag in known or flag.replace("_", "-") in known, f"no flag {code}: {path.name}"


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = [call for call in CALLS if call.words[0] == "make" and call.sure]
    assert len(found) > 10
    for call in found:
        assert re.search(rf"^{re.escape(call.words[1])}:", makefile, re.MULTILINE), f"no such target: {call.where}"
    for target in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split():
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f".PHONY names {target}, which is no target"
