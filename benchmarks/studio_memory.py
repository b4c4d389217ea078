"""Memory of the studio's page and of its server while a run goes on under it.

    python benchmarks/studio_memory.py [--minutes 10] [--lines 1000] [--rate 20] [--json FILE]

The page of a run is open in headless Chromium. The run gains that many updates a second, and every 100 updates an
evaluation and a sample. Each row is measured after a garbage collection: JavaScript's heap, nodes of the document,
listeners, and the resident memory of the server. The benchmark needs `pip install playwright` and Chromium.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, sync_playwright
from results import make_parser, write_result
from studio_run import evaluation_line, sample_line, studio, update_line, write_run

EVALUATED_EVERY = 100
NUM_ROWS = 10
RATE_OF_WRITES = 5
"""Times a second that the run's files grow."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--lines", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "live"
        write_run(run, arguments.lines, arguments.lines // EVALUATED_EVERY, num_steps=1_000_000)
        with studio(Path(folder)) as (address, server), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.goto(address)
            page.wait_for_selector(".chart-large canvas")
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")
            step, rows = arguments.lines, []
            for number in range(NUM_ROWS + 1):
                if number:
                    step = grow(run, step, arguments.rate, 60 * arguments.minutes / NUM_ROWS)
                rows.append(measure(session, server) | {"step": step})
                print(describe(rows[-1]), flush=True)
            page.get_by_text(f"{step:,}").first.wait_for()  # the page has followed the run
            browser.close()
    write_result(arguments.json, {"minutes": arguments.minutes, "rate": arguments.rate, "rows": rows})


def grow(run: Path, step: int, rate: int, seconds: float) -> int:
    """Appends updates to the run for some seconds; returns its last step."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(rate // RATE_OF_WRITES):
            step += 1
            append(run / "metrics.jsonl", update_line(step))
            if step % EVALUATED_EVERY == 0:
                append(run / "metrics.jsonl", evaluation_line(step))
                append(run / "samples.jsonl", sample_line(step))
        time.sleep(1 / RATE_OF_WRITES)
    return step


def append(path: Path, line: str) -> None:
    """Adds a line to a file of the run."""
    with path.open("a") as file:
        file.write(line)


def measure(session: CDPSession, server: int) -> dict[str, Any]:
    """Memory of the page after a garbage collection, and of the server, in bytes."""
    session.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    resident_pages = int(Path(f"/proc/{server}/statm").read_text().split()[1])
    return {
        "heap": int(metrics["JSHeapUsedSize"]),
        "nodes": int(metrics["Nodes"]),
        "listeners": int(metrics["JSEventListeners"]),
        "server": resident_pages * os.sysconf("SC_PAGE_SIZE"),
    }


def describe(row: dict[str, Any]) -> str:
    """A row as a line of text."""
    return (
        f"step {row['step']:,}: heap {row['heap'] / 2**20:.2f} MiB, {row['nodes']:,} nodes, "
        f"{row['listeners']:,} listeners; server {row['server'] / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
