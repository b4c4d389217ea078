"""The fault campaign: the number of trials of each guarantee, and a table of results at the end.

`make test` runs a few trials of each, `make test-faults` (pytest --faults full) the full number. A test that
cannot run on a machine is listed as skipped, never as passed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults import trials

ROW = "fault campaign"


@pytest.fixture
def count(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> int:
    """Number of trials of this test."""
    promise = request.node.get_closest_marker("promise")
    tries = int(promise.kwargs[request.config.getoption("--faults")])
    record_property(ROW, {"promise": promise.args[0], "count": tries})
    return tries


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """A function that adds a result to this test's row of the table."""
    return lambda text: record_property(ROW, {"result": text})


@pytest.fixture(scope="session")
def whole(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run without any fault."""
    run = tmp_path_factory.mktemp("whole") / "run"
    trials.train_to_the_end(tiny_shards, run)
    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows = []
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            row: dict[str, Any] = {}
            for name, value in getattr(report, "user_properties", []):
                if name == ROW:
                    row |= value
            if "promise" in row:
                reason = report.longrepr[2] if outcome == "skipped" else row.get("result", "")
                rows.append((row["promise"], str(row["count"]), f"{outcome}: {reason}".removesuffix(": ")))
    if rows:
        terminalreporter.section(f"{ROW}, {terminalreporter.config.getoption('--faults')} counts")
        width = max(len(promise) for promise, _, _ in rows)
        for promise, tries, result in sorted(rows):
            terminalreporter.write_line(f"{promise:<{width}}  {tries:>6}  {result}")
