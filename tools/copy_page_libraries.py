#!/usr/bin/env python3
"""Copies the libraries of the studio's page into the package, each with its licence, as package-lock.json pins them.

`npm ci` fetches them into `node_modules/` and checks their hashes. The page has no build step. So an import of another
package by its bare name becomes an import of the copy by its path. Lines that name source maps are left out. Beside
each module lies a declaration that gives `tsc` the package's own types.
With `--check` nothing is fetched or written: the copies are compared with `node_modules/`.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = ROOT / "node_modules"
TARGET = ROOT / "src/tinyllm/serving/studio/page/vendor"


@dataclass(frozen=True)
class Copy:
    """A file of a package, and what it becomes under `vendor/`."""

    source: str
    target: str
    types: str | None = None
    """The module whose types the copy has."""
    default: bool = False
    """Whether the module has a default export."""


COPIES = (
    Copy("preact/dist/preact.mjs", "preact/preact.js", "preact"),
    Copy("preact/hooks/dist/hooks.mjs", "preact/hooks.js", "preact/hooks"),
    Copy("preact/LICENSE", "preact/LICENSE"),
    Copy("htm/dist/htm.module.js", "htm/htm.js", "htm", default=True),
    Copy("htm/LICENSE", "htm/LICENSE"),
    Copy("uplot/dist/uPlot.esm.js", "uplot/uPlot.js", "uplot", default=True),
    Copy("uplot/dist/uPlot.min.css", "uplot/uPlot.min.css"),
    Copy("uplot/LICENSE", "uplot/LICENSE"),
)
PATHS = {"preact": "./preact.js"}
"""Bare name in an import -> path of the copy, from the module that imports it."""


def copied_files() -> dict[str, str]:
    """The contents under `vendor/` by name, from `node_modules/`. Raises OSError if a package is missing."""
    files = {}
    for copy in COPIES:
        text = (MODULES / copy.source).read_text(encoding="utf-8")
        files[copy.target] = _adapt(text) if copy.target.endswith(".js") else text
        if copy.types is not None:
            files[copy.target.removesuffix(".js") + ".d.ts"] = _declaration(copy)
    files["versions.json"] = json.dumps(_versions(), indent=2) + "\n"
    return files


def _adapt(text: str) -> str:
    """A module that imports copies by their paths and names no source map."""
    text = re.sub(r"^//# sourceMappingURL=.*\n?", "", text, flags=re.MULTILINE)
    for name, path in PATHS.items():
        text = re.sub(rf"""(\bfrom\s*)(["']){re.escape(name)}\2""", rf"\g<1>\2{path}\2", text)
    bare = re.search(r"""(?:^|;)(?:import|export)\b[^;"']*?from\s*["'](?![./])([^"']+)["']""", text, re.MULTILINE)
    if bare is not None:
        raise ValueError(f"a module imports {bare[1]} by its bare name; add its path to PATHS")
    return text


def _declaration(copy: Copy) -> str:
    default = f'export {{ default }} from "{copy.types}";\n' if copy.default else ""
    return f'export * from "{copy.types}";\n{default}'


def _versions() -> dict[str, str]:
    names = sorted({copy.source.partition("/")[0] for copy in COPIES})
    return {
        name: json.loads((MODULES / name / "package.json").read_text(encoding="utf-8"))["version"] for name in names
    }


def different_files(files: dict[str, str]) -> list[str]:
    """The names under `vendor/` that are missing, differ, or should not be there."""
    present = {path.relative_to(TARGET).as_posix(): path for path in TARGET.rglob("*") if path.is_file()}
    differing = {
        name for name, text in files.items() if name not in present or present[name].read_text("utf-8") != text
    }
    return sorted(differing | (present.keys() - files.keys()))


def write_files(files: dict[str, str]) -> None:
    """Writes the copies in place of those that are there."""
    shutil.rmtree(TARGET, ignore_errors=True)
    for name, text in files.items():
        path = TARGET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the copies with node_modules, and write nothing")
    check = parser.parse_args().check
    if not check:
        subprocess.run(["npm", "ci"], cwd=ROOT, check=True)
    files = copied_files()
    if check:
        differing = different_files(files)
        if differing:
            sys.exit(f"vendor/ differs from package-lock.json in {', '.join(differing)}; run {Path(__file__).name}")
        print(f"vendor/ has the {len(files)} files of package-lock.json")
        return
    write_files(files)
    print(f"copied {len(files)} files into {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
