"""Options of a benchmark, and the file of results that `table.py` reads."""

import argparse
import json
from pathlib import Path


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with --json; the benchmark's docstring is its help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="A file for the results.")
    return parser


def write_result(path: Path | None, result: object) -> None:
    """Writes `result` as JSON, if a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
