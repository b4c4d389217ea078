"""Files on a web server, which lists nothing and gives no ranges."""

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tinyllm import storage
from tinyllm.corpus.documents import read_documents
from tinyllm.errors import DownloadError, InputError
from tinyllm.storage.remote.fetch import fetch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="needs aiohttp: pip install 'tinyllm[https]'"
)


class QuietHandler(SimpleHTTPRequestHandler):
    failures: ClassVar[list[int]] = []
    """Statuses of the next answers."""

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer(super().do_HEAD)

    def do_GET(self) -> None:
        self._answer(super().do_GET)

    def _answer(self, serve: Callable[[], None]) -> None:
        if self.failures:
            self.send_error(self.failures.pop(0))
        else:
            serve()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server for the folder `site`."""
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tinyllm.storage.remote.drivers.FIRST_WAIT_SECONDS", 0.02)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_and_committed_directories_come_from_the_web(web: str, tmp_path: Path) -> None:
    with storage.commit_directory(tmp_path / "site" / "thing", "shards") as draft:
        draft.write("a.bin", b"a" * 100_000)
    (tmp_path / "site" / "b.txt").write_text("one\ntwo\n")
    assert (fetch(f"{web}/thing") / "a.bin").read_bytes() == b"a" * 100_000
    assert fetch(f"{web}/b.txt?signature=secret").read_text() == "one\ntwo\n"
    read = list(read_documents([f"{web}/b.txt"], documents="line"))
    assert [(found.text, found.source) for found in read] == [("one", f"{web}/b.txt"), ("two", f"{web}/b.txt")]
    with pytest.raises(InputError, match=f"^{web}/none.txt does not exist$"):
        list(read_documents([f"{web}/none.txt"]))


def test_two_processes_fetch_once(web: str, tmp_path: Path) -> None:
    with storage.commit_directory(tmp_path / "site" / "thing", "shards") as draft:
        draft.write("a.bin", b"a" * 100_000)
    program = "import sys\nfrom tinyllm.storage.remote.fetch import fetch\nprint(fetch(sys.argv[1], note=print))"
    command = [sys.executable, "-c", program, f"{web}/thing"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    lines = [process.communicate()[0].splitlines() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert len({found[-1] for found in lines}) == 1
    assert sum(line.startswith("fetching ") for found in lines for line in found) == 1


def test_a_server_that_fails_is_asked_again_and_a_missing_file_is_another_thing(web: str, tmp_path: Path) -> None:
    """The driver says of every failure that the file does not exist."""
    (tmp_path / "site" / "b.txt").write_text("one\ntwo\n")
    QuietHandler.failures += [503] * 6
    assert [found.text for found in read_documents([f"{web}/b.txt"], documents="line")] == ["one", "two"]
    QuietHandler.failures += [503] * 6
    assert fetch(f"{web}/b.txt").read_text() == "one\ntwo\n"
    assert not QuietHandler.failures
    QuietHandler.failures += [403] * 8
    with pytest.raises(InputError, match=r"^http://127.0.0.1:\d+/b.txt may not be used: 403"):
        list(read_documents([f"{web}/b.txt"]))
    QuietHandler.failures.clear()


def test_a_web_server_that_is_not_there_is_named(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.storage.remote.drivers.TRIES", 2)
    for read in (lambda place: list(read_documents([place])), fetch):
        with pytest.raises(DownloadError, match=r"^http://127.0.0.1:9/\S+ failed 2 times: Cannot connect to host"):
            read("http://127.0.0.1:9/b.txt")
