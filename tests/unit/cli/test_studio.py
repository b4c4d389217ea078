"""`tinyllm studio`: its line, the browser, and the rules that it shares with `serve`."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.cli.server_options import ServerOptions
from tinyllm.cli.studio import studio
from tinyllm.errors import InputError, UsageError
from tinyllm.serving.service import Service


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the browser opened; the server is ready at once, and ends."""
    addresses: list[str] = []

    class Thread:
        def __init__(self, target: Callable[..., None], args: tuple[str], daemon: bool) -> None:
            self.start = lambda: target(*args)

    def run(self: Service, bound: socket.socket, on_ready: Callable[[], None]) -> bool:
        on_ready()
        return True

    monkeypatch.setattr(Service, "run", run)

    def open_page(address: str) -> bool:
        addresses.append(address)
        return True

    monkeypatch.setattr("tinyllm.cli.studio.threading.Thread", Thread)
    monkeypatch.setattr("tinyllm.cli.studio.webbrowser.open", open_page)
    monkeypatch.setattr("tinyllm.cli.studio.sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    return addresses


def test_one_line_has_the_address_and_the_browser_opens_it(
    opened: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studio(tmp_path, server=ServerOptions(port=0))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"the studio of {tmp_path} is at {opened[0]} (Ctrl-C ends)"
    assert opened[0].startswith("http://127.0.0.1:")


def test_no_browser_is_opened_on_request(opened: list[str], tmp_path: Path) -> None:
    studio(tmp_path, browser=False, server=ServerOptions(port=0))
    assert opened == []


def test_without_a_display_a_line_says_to_open_the_page(
    opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    studio(tmp_path, server=ServerOptions(port=0))
    assert opened == []
    assert capsys.readouterr().err.startswith("no browser was opened; go to http://127.0.0.1:")


def test_wrong_calls_start_nothing(opened: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, message in (("missing", "does not exist"), ("file", "is a file")):
        with pytest.raises(InputError, match=message):
            studio(tmp_path / place)
    with pytest.raises(UsageError, match="a key is needed"):
        studio(tmp_path, server=ServerOptions(host="0.0.0.0", port=0))
    with pytest.raises(UsageError, match="max-slots"):
        studio(tmp_path, max_slots=0)
    assert opened == []
