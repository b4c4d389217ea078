"""A web server on this machine that serves one file, correctly or with the faults that a test chooses."""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Behaviour = Callable[["Handler", "FileServer"], None]


@dataclass
class FileServer:
    """The served file and the behaviours: each request takes the next one of `plan`, later requests take `well`."""

    content: bytes = bytes(range(256)) * 1000
    etag: str | None = '"version-1"'
    plan: list[Behaviour] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request, with its path."""
    address: str = ""

    def ranges(self) -> list[str | None]:
        """The Range header of each received request."""
        return [request.get("Range") for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    """One request; the server closes the connection after it."""

    def do_GET(self) -> None:
        server: FileServer = self.server.file  # type: ignore[attr-defined]
        server.requests.append({"path": self.path, **dict(self.headers)})
        behave = server.plan.pop(0) if server.plan else well
        behave(self, server)

    def start(self, status: int, **headers: object) -> None:
        """The response's head; a header of None is left out."""
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints nothing into the output of a test."""


def well(handler: Handler, server: FileServer, stop_after: int | None = None) -> None:
    """Answers by RFC 9110: a range, or the whole file if If-Range names another version."""
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(match[1]) if match and handler.headers.get("If-Range") == server.etag else 0
    total = len(server.content)
    if match and start >= total:
        return handler.start(416, Content_Range=f"bytes */{total}", Content_Length=0)
    span = f"bytes {start}-{total - 1}/{total}" if start else None
    handler.start(206 if start else 200, Content_Length=total - start, ETag=server.etag, Content_Range=span)
    handler.wfile.write(server.content[start:][:stop_after])
    return None


def cut(stop_after: int) -> Behaviour:
    """Answers like `well`, but the connection ends after `stop_after` bytes of the body."""
    return lambda handler, server: well(handler, server, stop_after)


def whole(handler: Handler, server: FileServer) -> None:
    """Answers with the whole file and ignores ranges."""
    handler.start(200, Content_Length=len(server.content), ETag=server.etag)
    handler.wfile.write(server.content)


def status(code: int, **headers: object) -> Behaviour:
    """Answers with a status and no file."""
    return lambda handler, server: handler.start(code, Content_Length=0, **headers)


def hang_up(handler: Handler, server: FileServer) -> None:
    """Ends the connection without an answer."""
    handler.close_connection = True


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server on a free port of 127.0.0.1, for one test."""
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.file = FileServer(address=f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.file  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()
