"""Fails when CHANGELOG.md or CITATION.cff names another newest release than the package."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSION = r"(\d[^\]\"]*)"
DATE = r"(\d{4}-\d{2}-\d{2})"


def main() -> int:
    """Compares the three files; the exit code is 1 if they disagree."""
    changelog = find("CHANGELOG.md", rf"^## \[{VERSION}\] - {DATE}")
    package = find("src/tinyllm/version.py", rf'^__version__ = "{VERSION}"')
    citation = find("CITATION.cff", rf'^version: "{VERSION}"'), find("CITATION.cff", rf'^date-released: "{DATE}"')
    version, date = changelog.groups()
    problems = []
    if package[1] != version:
        problems.append(f"src/tinyllm/version.py says {package[1]}")
    if (citation[0][1], citation[1][1]) != (version, date):
        problems.append(f"CITATION.cff says {citation[0][1]} of {citation[1][1]}")
    if problems:
        print(f"CHANGELOG.md says {version} of {date}, {' and '.join(problems)}; make them equal")
        return 1
    print(f"version {version} in the package, the changelog and the citation")
    return 0


def find(name: str, pattern: str) -> re.Match[str]:
    """The first match of `pattern` in a file of the root. Raises ValueError if there is none."""
    found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{name} has no line that matches {pattern}")
    return found


if __name__ == "__main__":
    sys.exit(main())
