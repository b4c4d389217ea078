"""Options of a benchmark, turns of its sides, and the file of results that `table.py` reads."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
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


def medians_in_turns(sides: Mapping[str, Callable[[], float]], num_rounds: int) -> dict[str, float]:
    """The median rate of each side. Sides alternate, so that a noisy machine disturbs all; a first round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(num_rounds + 1):
        for name, side in sides.items():
            time.sleep(0.05)  # until the other side's threads sleep
            rate = side()
            if round_number:
                rates[name].append(rate)
    return {name: statistics.median(side_rates) for name, side_rates in rates.items()}
