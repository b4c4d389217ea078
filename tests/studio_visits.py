"""Visits of the studio's page by a real browser, and the names and texts of the folder that it shows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

ROOT = Path(__file__).parents[1]
AXE = ROOT / "node_modules/axe-core/axe.min.js"
FIRST, SECOND = "first", "higher rate"
HOSTILE_NAME = "<img src=x onerror=window.executed=1>"
"""The name of a run, where the file system allows it."""
HOSTILE_TEXTS = (
    "<script>window.executed=1</script>",
    "<img src=x onerror=window.executed=1>",
    "<svg onload=window.executed=1>",
    "</textarea><script>window.executed=1</script>",
    '"><iframe srcdoc="<script>parent.executed=1</script>">',
    "javascript:window.executed=1",
    "${window.executed=1} {{window.executed=1}} `${window.executed=1}`",
    "\u202e\u0000 \u2028 ]]> <!-- <plaintext>",
)
TINY = (
    *("--model.hidden_size", "16", "--model.num_layers", "2", "--model.num_heads", "2", "--model.num_kv_heads", "2"),
    *("--model.context_length", "32", "--training.sequence_length", "32", "--training.batch_size", "2"),
    *("--training.num_threads", "1", "--dtype", "float32", "--training.compile", "off", "--device", "cpu"),
    *("--training.attention", "fused", "--training.eval_batches", "2", "--sample.max_new_tokens", "12"),
)
SECONDS = 20_000
"""Patience of the browser, in milliseconds."""


@dataclass
class Visit:
    """A page of the browser, and what it must not do."""

    page: Any
    address: str
    messages: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, view: str = "") -> Any:
        """Loads the page at a hash, and returns it."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/{view}")
        return self.page

    def go(self, view: str) -> Any:
        """Shows a hash without loading the page again, as a link inside it does."""
        self.page.evaluate("hash => { location.hash = hash; }", view)
        return self.page

    def wait_for_content(self) -> None:
        """Waits until the view shows more than that it is loading."""
        wait_until(self.page, "() => !document.querySelector('.loading, [aria-busy=true]')")
        self.page.locator("main canvas, main .document, main .token, main .empty, main .bars").first.wait_for()

    def check(self) -> None:
        """Fails if the page said an error, asked another machine, or executed a hostile text."""
        assert not self.foreign, f"requests left the machine: {self.foreign}"
        assert not self.messages, self.messages
        assert self.page.evaluate("window.executed") is None


def wait_until(page: Any, script: str, argument: object = None) -> None:
    """Waits until a function of JavaScript is true. Playwright's own wait needs `eval`, which the policy refuses."""
    begin = time.monotonic()
    while not page.evaluate(script, argument):
        assert time.monotonic() - begin < SECONDS / 1000, f"never true: {script}"
        page.wait_for_timeout(30)


def violations(page: Any, *rules: str) -> list[tuple[str, str, str]]:
    """The findings of axe-core: the rule, the first element and the reason; by all rules, or only some.

    Skips the test without axe-core.
    """
    if not AXE.exists():
        pytest.skip("axe-core is not in node_modules; npm ci installs it")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found = page.evaluate("options => axe.run(document, options)", options)["violations"]
    return [(each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"]) for each in found]


def violations_in_both_themes(page: Any) -> list[tuple[str, str, str]]:
    """The findings of axe-core in light by all rules, and in dark by that of colours, in which alone it differs.

    The page is light before and after.
    """
    found = violations(page)
    page.get_by_role("button", name="Dark colours").click()
    found += violations(page, "color-contrast")
    page.get_by_role("button", name="Light colours").click()
    return found


Start = Callable[..., Visit]
BOTH = f"#/runs?run={quote(f'runs/{FIRST}', safe='')}&run={quote(f'runs/{SECOND}', safe='')}"
VIEWS = ("#/runs", "#/playground", "#/inside", "#/data", "#/data?part=statistics", "#/data?part=tokenizer", BOTH)
