"""A folder with real runs and shards, the studio that serves it, and pages of a real browser."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from server_process import KEY, WITH_TORCH, ServerProcess
from studio_visits import FIRST, HOSTILE_NAME, HOSTILE_TEXTS, SECOND, SECONDS, TINY, Visit
from tinyllm.cli.app import main
from tinyllm.model_dir import bundled_model
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer


def browser_program() -> str | None:
    """The path of a Chromium on this machine."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next(filter(None, found), None)


DESKTOP = {"locale": "en-US", "color_scheme": "light", "reduced_motion": "reduce"}


class Chromium:
    """A headless Chromium, the system's own or Playwright's, which is started when a test needs it."""

    def __init__(self) -> None:
        self._playwright: Any = None
        self._program: Any = None
        self._context: Any = None

    def open(self) -> Any:
        """The browser. Skips the test where there is none."""
        if self._program is None:
            api = pytest.importorskip("playwright.sync_api", reason="the page needs playwright, of the extra dev")
            self._playwright = api.sync_playwright().start()
            path = browser_program() or self._playwright.chromium.executable_path
            if not Path(path).exists():
                self.close()
                pytest.skip("the studio's page needs chromium; make browser installs one")
            sandbox = [] if os.environ.get("CI") is None and getattr(os, "getuid", lambda: 1)() else ["--no-sandbox"]
            self._program = self._playwright.chromium.launch(executable_path=path, args=[*sandbox, "--disable-gpu"])
        return self._program

    def plain_context(self) -> Any:
        """A context of an English desktop that tests use in turn: it has the page's modules in its cache."""
        if self._context is None:
            self._context = self.open().new_context(viewport={"width": 1280, "height": 800}, **DESKTOP)
            self._context.set_default_timeout(SECONDS)
        return self._context

    def close(self) -> None:
        """Ends the browser, and Playwright's event loop in this thread."""
        if self._program is not None:
            self._program.close()
        if self._playwright is not None:
            self._playwright.stop()
        self._program = self._playwright = self._context = None


CHROMIUM = Chromium()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Ends the browser after the last test of this folder: tests of other rooms need an event loop of their own."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        CHROMIUM.close()


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """The browser of all tests of this folder; it may be closed between them."""
    return CHROMIUM


@pytest.fixture
def browser(chromium: Chromium) -> Any:
    """A headless Chromium that runs."""
    return chromium.open()


@pytest.fixture(scope="session")
def studio_folder(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with hostile documents, and three short runs that were really trained."""
    folder = tmp_path_factory.mktemp("studio")
    lines = [f"Once upon a time the {('fox', 'bear', 'owl')[i % 3]} number {i} saw a red ball." for i in range(60)]
    (folder / "corpus.txt").write_text("\n".join([*HOSTILE_TEXTS, *lines, *lines[:6]]).replace("\u0000", ""), "utf-8")
    prepare(
        [folder / "corpus.txt"],
        tiny_tokenizer,
        folder / "shards",
        documents="line",
        validation_fraction=0.2,
        num_workers=1,
    )
    for name, rate, steps in ((HOSTILE_NAME, "1e-3", 2), (SECOND, "2e-2", 30), (FIRST, "5e-3", 40)):
        train(folder, name, "--schedule.peak", rate, "--steps", str(steps), "--training.eval_interval", "5")
    return folder


def train(folder: Path, name: str, *arguments: str) -> None:
    """Trains a run under `folder` in this process."""
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--data", str(folder / "shards"), "--out", str(folder / "runs" / name), *TINY, *arguments])


@pytest.fixture(scope="session")
def studio(studio_folder: Path, user_cache: Path) -> Iterator[ServerProcess]:
    """`tinyllm studio` for the folder. Views into a model need PyTorch; as engine, it compiles no kernels."""
    server = ServerProcess(user_cache, str(studio_folder), "--no-browser", command="studio", more=WITH_TORCH)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def loaded_model(studio: ServerProcess) -> None:
    """The bundled model and PyTorch are loaded, so that a page need not wait for them."""
    with studio.client(seconds=120) as client:
        body = {"model": bundled_model().name, "prompt": "A", "max_tokens": 1}
        assert client.post("/v1/completions", json=body).is_success
        assert client.post("/studio/api/trace", json={"model": body["model"], "text": "A"}).is_success


@pytest.fixture(scope="session")
def locked_studio(studio_folder: Path, user_cache: Path) -> Iterator[ServerProcess]:
    """The studio with a key."""
    server = ServerProcess(user_cache, str(studio_folder), "--no-browser", "--api-key", KEY, command="studio")
    yield server
    server.stop()


@pytest.fixture
def visit(chromium: Chromium, studio: ServerProcess) -> Iterator[Callable[..., Visit]]:
    """A function that opens a page; what the page did is checked after the test.

    The page has a context of its own if it is not the first of the test, or has options.
    """
    browser = chromium.open()
    visits: list[Visit] = []
    contexts: list[Any] = []

    def start(width: int = 1280, address: str = studio.url, **options: Any) -> Visit:
        if visits or options or width != 1280:
            context = browser.new_context(viewport={"width": width, "height": 800}, **(DESKTOP | options))
            context.set_default_timeout(SECONDS)
            contexts.append(context)
        else:
            context = chromium.plain_context()
        made = Visit(context.new_page(), address)
        made.page.on("pageerror", lambda error: made.messages.append(str(error)))
        made.page.on("console", lambda message: _note_console(made, message))
        made.page.on("request", lambda request: _note_request(made, request.url))
        visits.append(made)
        return made

    yield start
    for made in visits:
        try:
            made.check()
        finally:
            made.page.evaluate("localStorage.clear()")
            made.page.close()
    for context in contexts:
        context.close()


def _note_console(visit: Visit, message: Any) -> None:
    refused_key = "401" in message.text  # the browser itself notes that the server wants a key
    if message.type in ("error", "warning") and not refused_key:
        visit.messages.append(message.text)


def _note_request(visit: Visit, url: str) -> None:
    if urlsplit(url).scheme not in ("about", "data") and not url.startswith(visit.address):
        visit.foreign.append(url)


@pytest.fixture
def growing_run(studio_folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The id of a copy of a run with half of its lines, as from another machine, and a function that adds a line."""
    name = "growing"
    path = studio_folder / "runs" / name
    shutil.copytree(studio_folder / "runs" / FIRST, path, ignore=shutil.ignore_patterns("*.lock", ".lock", "model"))
    log = path / "metrics.jsonl"
    lines = log.read_text("utf-8").splitlines(keepends=True)
    rest = iter(lines[len(lines) // 2 :])
    log.write_text("".join(lines[: len(lines) // 2]), "utf-8")

    def grow() -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(next(rest))

    yield f"runs/{name}", grow
    shutil.rmtree(path)


@pytest.fixture
def live_run(studio_folder: Path) -> Iterator[str]:
    """The id of a run that goes on while the test looks at it."""
    name = "live"
    command = ["train", "--data", str(studio_folder / "shards"), "--out", str(studio_folder / "runs" / name), *TINY]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyllm", *command, "--steps", "1000000", "--training.eval_interval", "200"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"runs/{name}"
    process.send_signal(signal.SIGINT)
    process.wait(60)
    shutil.rmtree(studio_folder / "runs" / name)
