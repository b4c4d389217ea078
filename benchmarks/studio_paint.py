"""Time and bytes until the studio's page has drawn a long run in headless Chromium.

    python benchmarks/studio_paint.py [--lines 10000000] [--samples 10000] [--rounds 5] [--json FILE]

The run has that many lines of metrics, an evaluation every 1,000 updates, and that many samples. Each round opens the
page in a new context, without a cache. The time ends when the first chart has its curves and the samples are there. The
first round also searches the folder. Load is that of the machine in the minute before. The benchmark needs
`pip install playwright` and Chromium.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from results import make_parser, write_result

EVAL_INTERVAL = 1_000
CONFIG = f"""
[model]
vocab_size = 2048

[training]
batch_size = 16
sequence_length = 256
eval_interval = {EVAL_INTERVAL}

[schedule]
num_steps = {{num_steps}}
"""
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
        with studio(Path(folder)) as address, sync_playwright() as playwright:
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


def write_run(run: Path, num_lines: int, num_samples: int) -> int:
    """Writes the run's files; returns the bytes of its log."""
    run.mkdir()
    (run / "config.toml").write_text(CONFIG.format(num_steps=num_lines))
    with (run / "metrics.jsonl").open("w") as file:
        for first in range(1, num_lines + 1, EVAL_INTERVAL):
            file.writelines(
                f'{{"step": {step}, "epoch": 0.1234, "loss": {2 + 1e6 / (step + 1e6):.6f}, "learning_rate": 0.00100, '
                f'"grad_norm": 1.2345678901234, "tokens_per_second": 64000.0, "memory_bytes": 400000000}}\n'
                for step in range(first, first + EVAL_INTERVAL)
            )
            last = first + EVAL_INTERVAL - 1
            file.write(f'{{"step": {last}, "validation_loss": {2 + 1e6 / (last + 1e6)}, "bits_per_byte": 1.5}}\n')
    with (run / "samples.jsonl").open("w") as file:
        for number in range(num_samples):
            step = (number + 1) * max(1, num_lines // num_samples)
            text = f" there was a fox number {number}. " + "It saw a red ball and ran after it. " * 10
            file.write(json.dumps({"step": step, "prompt": "Once upon a time", "text": text}) + "\n")
    return (run / "metrics.jsonl").stat().st_size


@contextmanager
def studio(folder: Path) -> Iterator[str]:
    """The address of `tinyllm studio` for a folder, in a process of its own."""
    command = [sys.executable, "-m", "tinyllm", "studio", str(folder), "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().rpartition(" at ")[2].split()[0]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


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
