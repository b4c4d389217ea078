"""Tokens per second of exported HTML pages in headless Chromium, opened from disk.

    python benchmarks/html_export.py [--shapes bundled,15m] [--kinds int8,bf16] [--json FILE]

`bundled` is the model in the package, with its prompt and its own ends. The other shapes have random weights, which
cost the same. A page writes 200 tokens five times with the sliders as they stand; the median counts.

The rate is the page's own. It begins at the first token, and includes drawing the text. The benchmark needs
`pip install playwright` and Chromium.
"""

import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright
from results import make_parser, write_result
from wide_tokenizer import wide_tokenizer

from tinyllm.config import ModelConfig
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.write import export_model
from tinyllm.loading import read_model
from tinyllm.model.size import num_parameters, parameter_shapes
from tinyllm.model_dir import bundled_model

SHAPES: dict[str, dict[str, Any]] = {
    "15m": {"hidden_size": 288, "num_layers": 6, "num_heads": 6, "context_length": 256, "vocab_size": 32_000},
    "42m": {"hidden_size": 512, "num_layers": 8, "num_heads": 8, "context_length": 1024, "vocab_size": 32_000},
}
TARGETS = {"int8": "html", "bf16": "html-bf16"}
NUM_TEXTS = 5


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--shapes", default="bundled,15m")
    parser.add_argument("--kinds", default="int8,bf16")
    arguments = parser.parse_args()
    rows = []
    print("| model | parameters | weights | file | opens in | tokens/s |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for shape in arguments.shapes.split(","):
        model = read_model(bundled_model()) if shape == "bundled" else random_weights(SHAPES[shape])
        for kind in arguments.kinds.split(","):
            row = {"model": shape, "parameters": num_parameters(model.config), "weights": kind} | measure(model, kind)
            rows.append(row)
            print(
                f"| {shape} | {row['parameters'] / 1e6:.1f} M | {kind} | {row['bytes'] / 1e6:.1f} MB "
                f"| {row['open_seconds']:.1f} s | {row['rate']:.0f} |",
                flush=True,
            )
    write_result(arguments.json, rows)


def random_weights(shape: dict[str, Any]) -> ForeignModel:
    """A model with random weights, whose texts are long: the end tokens are unlikely."""
    config, numbers = ModelConfig(**shape), np.random.default_rng(0)
    tensors = {
        name: numbers.standard_normal(shape, np.float32) * np.float32(0.02)
        if len(shape) > 1
        else np.ones(shape, np.float32)
        for name, shape in parameter_shapes(config).items()
    }
    return ForeignModel(config, tensors, wide_tokenizer(config.vocab_size), "random")


def measure(model: ForeignModel, kind: str) -> dict[str, Any]:
    """Size of the page, seconds until it is ready, and its median rate."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        export = export_model(model, TARGETS[kind], Path(folder) / "page.html", prompt="Once upon a time")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(300_000)
        start = time.perf_counter()
        page.goto(export.path.as_uri())
        page.locator("#write:enabled").wait_for()
        seconds = time.perf_counter() - start
        rates = [rate_of_text(page) for _ in range(NUM_TEXTS + 1)][1:]
        browser.close()
    return {"bytes": export.num_bytes, "open_seconds": seconds, "rates": rates, "rate": statistics.median(rates)}


def rate_of_text(page: Page) -> float:
    """Writes one text; returns the tokens per second that the page shows."""
    page.locator("#write").click()
    page.locator(".token").first.wait_for(state="attached")
    page.locator("#stop:disabled").wait_for()
    found = re.search(r"([\d,]+) tokens/s", page.locator("#status").text_content() or "")
    assert found, "the page shows its rate"
    return float(found[1].replace(",", ""))


if __name__ == "__main__":
    main()
