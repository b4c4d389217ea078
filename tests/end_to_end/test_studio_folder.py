"""A real server over a folder: its page, a run that trains, and models that are loaded when they are used."""

import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server_process import WITH_TORCH, ServerProcess
from studio_folder import update, write_folder, write_lines
from tinyllm.model_dir import bundled_model
from tinyllm.serving.pool import MOST_LOADED

ENDLESS_TRACE = """
import time
from tinyllm.generation.generator import Generator
def trace(*arguments, **options):
    print("the trace begins")
    time.sleep(3600)
Generator.trace = trace
"""
"""Makes a trace that nothing can stop."""


@pytest.fixture
def folder(tmp_path: Path, tiny_shards: Path) -> Path:
    """A folder with a run, shards, and one model more than can be loaded."""
    folder = write_folder(tmp_path / "folder", tiny_shards, bundled_model())
    for number in range(MOST_LOADED):
        shutil.copytree(bundled_model(), folder / f"model{number}")
    return folder


def test_a_folder_is_served_beside_a_model(folder: Path, start_server: Callable[..., ServerProcess]) -> None:
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    server = start_server("--studio", folder, "--max-slots", 2)
    with server.client() as client:

        def loaded() -> list[str]:
            return [each["id"] for each in client.get("/studio/api/library").json()["models"] if each["loaded"]]

        page = client.get("/")
        assert page.status_code == 200
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert loaded() == ["storybook"]
        names = [each["id"] for each in client.get("/v1/models").json()["data"]]
        assert names == ["storybook", "model0", "model1", "model2", "model3", "runs/first/model"]
        body = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
        texts = {
            name: client.post("/v1/completions", json=body | {"model": name}).json()["choices"][0]["text"]
            for name in names
        }
        assert len(set(texts.values())) == 1, "all are copies of the bundled model"
        assert loaded() == ["storybook", "model1", "model2", "model3", "runs/first/model"]
        with client.stream("GET", "/studio/api/run/events?id=runs/first") as response:
            parts = response.iter_text()
            assert next(parts).startswith("event: state")
            write_lines(folder / "runs" / "first" / "metrics.jsonl", [update(51)], "a")
            assert next(parts).startswith("event: metrics")
            assert server.end() == 0
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before


@pytest.mark.slow
def test_ctrl_c_waits_for_no_trace(tmp_path: Path, user_cache: Path) -> None:
    server = ServerProcess(user_cache, str(tmp_path), "--no-browser", command="studio", more=WITH_TORCH + ENDLESS_TRACE)
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        with server.client() as client:
            response = client.post("/studio/api/trace", json={"model": bundled_model().name, "text": "A"})
            answers.append((response.status_code, response.json()["error"]["code"]))

    try:
        asker = threading.Thread(target=ask)
        asker.start()
        wait_for(lambda: "the trace begins" in server.output)
        assert server.end(signal.SIGINT, seconds=20) == 0
        asker.join(20)
        assert answers == [(503, "shutting_down")]
        assert "Traceback" not in server.output
    finally:
        server.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds, for a minute at most."""
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)
