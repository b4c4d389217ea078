"""The static files of the page, from the folder `page/` of this package, with the headers that confine the page.

The files are listed when the server starts: no path is ever built from a request.
"""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from tinyllm.serving.errors import ApiError

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
"""Ending -> content type of the files that are served; others, such as sources and licences, are plain text."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class PageFiles:
    """The files of the page by name, such as `views/runs.js`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        self._read: dict[Path, tuple[tuple[int, int], bytes, str]] = {}
        """Path -> time and size of the file when it was read, its content, and its ETag."""

    async def respond(self, name: str, request: Request) -> Response:
        """The response with a file, or 304 if the client has it. Raises ApiError for an unknown name."""
        path = self._paths.get(name)
        if path is None:
            raise ApiError(404, "the page has no such file")
        content, etag = self._content(path)
        headers = {**HEADERS, "ETag": etag}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=TYPES.get(path.suffix, "text/plain; charset=utf-8"))

    def _content(self, path: Path) -> tuple[bytes, str]:
        """The content of a file and its ETag; a file of the package that did not change is not read again."""
        status = path.stat()
        version = status.st_mtime_ns, status.st_size
        known = self._read.get(path)
        if known is None or known[0] != version:
            content = path.read_bytes()
            known = self._read[path] = version, content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return known[1:]
