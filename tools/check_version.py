"""Fails when the newest released version in CHANGELOG.md is not the package's own."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Compares the two versions; the exit code says whether they agree."""
    changelog = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    package = re.search(r'^__version__ = "(.+)"', (ROOT / "src/tinyllm/version.py").read_text(encoding="utf-8"), re.M)
    assert changelog is not None
    assert package is not None
    if changelog[1] != package[1]:
        print(f"CHANGELOG.md says {changelog[1]}, src/tinyllm/version.py says {package[1]}; make them equal")
        return 1
    print(f"version {package[1]} in the package and the changelog")
    return 0


if __name__ == "__main__":
    sys.exit(main())
