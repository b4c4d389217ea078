"""Below `cli`, progress and lines for the user have one protocol: `tinyllm.progress`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PEOPLE = ("cli", "course")
"""Rooms that print."""
MODULES = {
    path.relative_to(ROOT / "src" / "tinyllm").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "src" / "tinyllm").rglob("*.py"))
}
BELOW = {name: text for name, text in MODULES.items() if not name.startswith(PEOPLE)}
NAMES = re.compile(r"(announce|report|reporter|note|notify|listener|track|callback)")
"""Names of a parameter that receives events."""
TYPES = re.compile(r"\W*(Note|Reporter|TrainingReporter|FinetuneReporter|FitReporter)( \| None)?\W*")


def parameters(module: str) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Each parameter of each function, with its default."""
    for node in ast.walk(ast.parse(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found = node.args
            positional = [*found.posonlyargs, *found.args]
            defaults = [None] * (len(positional) - len(found.defaults)) + [*found.defaults]
            yield from zip([*positional, *found.kwonlyargs], [*defaults, *found.kw_defaults], strict=True)


def test_the_protocol_alone_takes_a_line() -> None:
    assert [name for name, text in BELOW.items() if "Callable[[str], None]" in text] == ["progress.py"]


def test_no_default_is_a_function_that_ignores() -> None:
    for name, text in MODULES.items():
        for parameter, default in parameters(text):
            assert not isinstance(default, ast.Lambda), f"{name}: {parameter.arg} has a lambda for its default"


def test_parameters_for_events_have_one_name_and_one_type() -> None:
    num_found = 0
    for name, text in BELOW.items():
        for parameter, default in parameters(text):
            if not NAMES.fullmatch(parameter.arg) or parameter.annotation is None:
                continue
            num_found += 1
            kind = ast.unparse(parameter.annotation)
            assert parameter.arg in ("note", "reporter"), f"{name}: {parameter.arg}"
            assert TYPES.fullmatch(kind), f"{name}: {parameter.arg} is {kind}"
            assert default is None or ast.unparse(default) in ("SILENT", "SILENT.note", "None"), f"{name}: {kind}"
    assert num_found > 25


def test_reporters_of_stages_extend_the_protocol() -> None:
    """A class with a method `note` is a reporter."""
    for name, text in MODULES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                is_root = (name, node.name) == ("progress.py", "Reporter")
                bases = " ".join(map(ast.unparse, node.bases))
                if "note" in methods and not is_root and node.name != "RunLog":
                    assert re.search(r"Reporter|Display", bases), f"{name}: {node.name} is no Reporter"


def test_nothing_below_cli_prints() -> None:
    """Two exceptions, which may come at any time: the line of a first signal, and that of a host that is silent."""
    assert [name for name, text in BELOW.items() if re.search(r"^\s+print\(", text, re.MULTILINE)] == [
        "machine/heartbeat.py",
        "machine/signals.py",
    ]
