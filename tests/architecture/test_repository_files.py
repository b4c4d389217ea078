"""The workflow, the templates, SECURITY.md and CITATION.cff are well-formed and agree with the project."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import CycloptsError

from tinyllm.cli.app import build_app

ROOT = Path(__file__).parent.parent.parent
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
YAML_FILES = [*sorted(GITHUB.rglob("*.yml")), ROOT / "CITATION.cff"]


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


JOBS = read_yaml(GITHUB / "workflows" / "ci.yml")["jobs"]
COMMANDS = [(job, step["run"]) for job, definition in JOBS.items() for step in definition["steps"] if "run" in step]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_file_is_a_mapping(path: Path) -> None:
    assert isinstance(read_yaml(path), dict)


def test_workflow_runs_every_python_on_every_system() -> None:
    for job in ("test", "windows"):
        assert JOBS[job]["strategy"]["matrix"]["python"] == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    systems = {*JOBS["test"]["strategy"]["matrix"]["os"], JOBS["windows"]["runs-on"]}
    assert {system.split("-")[0] for system in systems} == {"ubuntu", "macos", "windows"}


def test_workflow_runs_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set()
    for _, command in COMMANDS:
        program, *words = shlex.split(command)
        if program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), f"no such target: {command}"
            targets.add(words[0])
        elif program == "tinyllm":
            try:
                build_app(words).parse_args(words, exit_on_error=False, print_error=False)
            except CycloptsError as error:
                pytest.fail(f"{error}: {command}")
        for path in (word for word in words if word.startswith("tests/")):
            assert (ROOT / path).exists(), f"{path} is not there: {command}"
    assert {f"make {target}" for target in targets} == set(
        re.findall(r"^make \w+$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    )


def test_windows_installs_the_locked_versions() -> None:
    """The Makefile's other commands do so too (see test_environment.py)."""
    assert any("pip install" in command for job, command in COMMANDS if job == "windows")
    for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"):
        assert JOBS["windows"]["env"][name] == "requirements.lock"


def test_windows_leaves_out_tests_that_need_a_posix_system() -> None:
    """A module that imports one of these, or names SIGHUP, fails on Windows before its first test."""
    (command,) = [command for job, command in COMMANDS if job == "windows" and "pytest" in command]
    ignored = [ROOT / path for path in re.findall(r"--ignore (\S+)", command)]
    for path in (ROOT / "tests" / "unit").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(
            r"^import (fcntl|resource|pty|termios)|^(?!@pytest.mark.skipif).*signal\.SIGHUP", text, re.MULTILINE
        ):
            assert any(path.is_relative_to(place) for place in ignored), path


def test_forms_ask_for_something() -> None:
    for path in (GITHUB / "ISSUE_TEMPLATE").glob("*_*.yml"):
        form = read_yaml(path)
        assert form["name"], path
        assert form["description"], path
        fields = [item for item in form["body"] if item["type"] != "markdown"]
        assert any(field.get("validations", {}).get("required") for field in fields), path
        assert len({field["id"] for field in fields}) == len(fields), path


def test_citation_names_the_project() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
