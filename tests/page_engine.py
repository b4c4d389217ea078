"""Asks the engine of an exported page, which Node runs as the page's worker would."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.write import export_model

NODE = shutil.which("node")
PROGRAM = Path(__file__).with_suffix(".mjs")
GREEDY = {"temperature": 0, "topK": 0, "topP": 1, "minP": 0, "repetitionPenalty": 1, "maxNewTokens": 100, "seed": 1}

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed, which runs the engine of a page")


def make_page(model: ForeignModel, folder: Path, target: str = "html") -> Path:
    """Exports `model` to a page in `folder`."""
    return export_model(model, target, folder / f"{target}.html", overwrite=True).path


def ask(page: Path, requests: list[dict[str, Any]]) -> list[Any]:
    """The answers of the page's engine; `page_engine.mjs` lists the requests."""
    assert NODE is not None
    text = json.dumps(requests)
    ended = subprocess.run([NODE, str(PROGRAM), str(page)], input=text.encode(), capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    answers: list[Any] = json.loads(ended.stdout)
    return answers


def ask_each(page: Path, operation: str, key: str, values: list[Any]) -> list[Any]:
    """The answers to one request for each of `values`."""
    return ask(page, [{"op": operation, key: value} for value in values])
