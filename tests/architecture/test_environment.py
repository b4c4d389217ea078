"""The lock names one tested version of everything, for each Python and system, and the Makefile installs those."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = [Requirement(line) for line in LOCK.splitlines() if line and not line.lstrip().startswith("#")]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}


def declared() -> list[Requirement]:
    """Every requirement of pyproject.toml: core, extras, and what `make lock` adds; the project's own extras aside."""
    project = PROJECT["project"]
    texts = [*project["dependencies"], *PROJECT["dependency-groups"]["lock"]]
    texts += [text for extra in project["optional-dependencies"].values() for text in extra]
    return [found for text in texts if (found := Requirement(text)).name != project["name"]]


def pinned_version(name: str, environment: dict[str, str]) -> Version:
    """The one version of `name` that the lock gives in `environment`."""
    fitting = [
        pin
        for pin in PINS
        if canonicalize_name(pin.name) == canonicalize_name(name)
        and (pin.marker is None or Marker(str(pin.marker)).evaluate(environment))
    ]
    (pin,) = fitting
    (specifier,) = pin.specifier
    assert specifier.operator == "==", pin
    return Version(specifier.version)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_one_version_and_it_is_allowed(python: str, system: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": SYSTEMS[system],
    }
    for requirement in declared():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = pinned_version(requirement.name, environment)
            assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: locked {version}"


def test_the_lock_holds_on_every_machine() -> None:
    """pip 23.2 takes it as constraints: no extras, hashes, paths or registries, and no build for one machine alone."""
    for pin in PINS:
        assert not pin.extras, pin
        assert pin.url is None, pin
        assert all("+" not in specifier.version for specifier in pin.specifier), f"{pin} is a local version"
    assert not re.search(r"https?:|file:|--hash|--(extra-)?index|--find-links|^\s*#.*(/|\\)", LOCK, re.MULTILINE)


def test_the_makefile_installs_the_locked_versions() -> None:
    """Every target but `test-newest` and `lock` itself."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target, recipe in re.findall(r"^(\S+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE):
        for line in recipe.splitlines():
            if "pip install" in line and target not in ("test-newest", "lock"):
                assert line.startswith("\t$(LOCKED) "), f"{target}: {line}"
    for stamp in ("installed", "installed-dev"):
        assert re.search(rf"^\$\(VENV\)/{stamp}:.* \$\(LOCK\)", makefile, re.MULTILINE), stamp


CATEGORIES = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "UserWarning", "RuntimeWarning")


@pytest.mark.parametrize(("options", "passing"), [([], CATEGORIES[:3]), (["-W", "error"], ())])
def test_a_deprecation_fails_only_with_the_newest_versions(
    options: list[str], passing: tuple[str, ...], tmp_path: Path
) -> None:
    """`-W error` is what `make test-newest` adds."""
    tests = [f"def test_{name}():\n    warnings.warn('renamed', {name})\n" for name in CATEGORIES]
    path = tmp_path / "test_warnings.py"
    path.write_text("import warnings\n" + "".join(tests), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-v", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*command, *options, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert set(re.findall(r"test_(\w+) PASSED", done.stdout)) == set(passing), done.stdout
    assert len(re.findall(r"test_\w+ FAILED", done.stdout)) == len(CATEGORIES) - len(passing)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^\t\.venv-newest/bin/python -m pytest .*-W error$", makefile, re.MULTILINE)
