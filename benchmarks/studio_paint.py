"""Time and bytes until the studio's page has drawn a long run in headless Chromium.

    python benchmarks/studio_paint.py [--lines 10000000] [--samples 10000] [--rounds 5] [--json FILE]

The run has that many lines of metrics, an evaluation every 1,000 updates, and that many samples. Each round opens the
page in a new context, without a cache. The time ends when the first chart has its curves and the samples are there. The
first round also searches the folder. Load is that of the machine in the minute before. The benchmark needs
`pip install playwright` and Chromium.
"""

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from results import make_parser, write_result
from studio_run import studio, write_run

PAINTED = """() => new Promise((done) => {
    const look = () => {
        const canvas = document.querySelector(".chart-large canvas");
        if (canvas === null || document.querySelector(".sample .prose") === null) return requestAnimationFrame(look);
        requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())));
    };
    look();
})"""
"""Milliseconds from the beginning of the navigation to the frame after the first chart and the samples are there."""
SENT = """() => performance.getEntries().filter((each) => "transferSize" in each)
    .reduce((sum, each) => sum + each.transferSize, 0)"""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        num_bytes = write_run(Path(folder) / "long", arguments.lines, arguments.samples)
        with studio(Path(folder)) as (address, _), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            rounds = [paint(browser, address) for _ in range(arguments.rounds)]
            browser.close()
    seconds = [each["seconds"] for each in rounds]
    result = {
        "lines": arguments.lines,
        "samples": arguments.samples,
        "log_bytes": num_bytes,
        "first_seconds": seconds[0],
        "median_seconds": statistics.median(seconds),
        "page_bytes": rounds[0]["bytes"],
        "load": os.getloadavg()[0],
        "processors": os.cpu_count(),
    }
    print(
        f"{arguments.lines:,} lines ({num_bytes / 1e9:.1f} GB), {arguments.samples:,} samples: first paint "
        f"{seconds[0]:.2f} s, median of {len(seconds)} {result['median_seconds']:.2f} s, least {min(seconds):.2f} s; "
        f"{rounds[0]['bytes'] / 1e3:.0f} KB sent; load {result['load']:.1f} on {result['processors']} processors"
    )
    write_result(arguments.json, result)


def paint(browser: Browser, address: str) -> dict[str, Any]:
    """Seconds until the page has drawn, and the bytes that it was sent."""
    time.sleep(0.5)  # until the round before has ended
    context = browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(address, wait_until="commit")
    found = {"seconds": page.evaluate(PAINTED) / 1000, "bytes": page.evaluate(SENT)}
    context.close()
    return found


if __name__ == "__main__":
    main()
