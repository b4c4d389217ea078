"""One HTTP request of a download: opens an address, reads the body, and tells a setback from a failure.

`download` keeps the part of the file and tries again. Redirects never leave https, and no other scheme is opened.
"""

import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from typing import IO, cast
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tinyllm.errors import DownloadError
from tinyllm.version import __version__

CHUNK_BYTES = 2**18
"""Largest part of the body that is read at once."""
_RETRYABLE = (408, 425, 429, 500, 502, 503, 504)


class Setback(Exception):
    """A failure that a retry may overcome."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class RangeSetback(Setback):
    """The server has fewer bytes than the part that was received."""

    def __init__(self) -> None:
        super().__init__("the server's file is shorter than the part received (416)")


def open_address(url: str, headers: Mapping[str, str], timeout_seconds: float) -> HTTPResponse:
    """The response to a GET request. Raises Setback if a retry may help, otherwise DownloadError."""
    own = {"User-Agent": f"tinyllm/{__version__}", "Accept-Encoding": "identity"}
    try:
        response = _opener().open(request.Request(url, headers={**own, **headers}), timeout=timeout_seconds)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            raise RangeSetback from None
        if error.code in _RETRYABLE:
            wait_seconds = _retry_after(error.headers.get("Retry-After", ""))
            raise Setback(f"the server answers {error.code} {error.reason}", wait_seconds) from None
        raise DownloadError(f"{url}: {_refusal(error.code, error.reason)}") from None
    except (InvalidURL, UnicodeError) as error:
        raise DownloadError(f"{url} is not an address: {error}") from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: the server's certificate is not valid: {reason}") from None
        raise Setback(f"no connection ({reason or type(reason).__name__})") from None
    return cast(HTTPResponse, response)


class Redirects(request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http, which would let an attacker on the network answer."""

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> request.Request | None:
        """The redirected request. Raises DownloadError if it would leave https."""
        if req.type == "https" and urlsplit(newurl).scheme.lower() != "https":
            fp.close()
            raise DownloadError(
                f"{req.full_url}: the server redirects to {newurl}, which is not encrypted; nothing was fetched from "
                "there. Name that address yourself if you trust it"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> request.OpenerDirector:
    """An opener for HTTP and HTTPS with redirects and the system's proxies; no ftp, file or data addresses at all."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        Redirects(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def receive(response: HTTPResponse) -> Iterator[bytes]:
    """The chunks of the body. A lost connection raises Setback, so any OSError outside is the disk's."""
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise Setback(f"the connection was lost ({str(error) or type(error).__name__})") from None
        if not chunk:
            return
        yield chunk


def validator_of(response: HTTPResponse) -> str:
    """The validator for If-Range: a strong ETag, else a date; empty if there is neither."""
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return response.headers.get("Last-Modified", "")


def _refusal(code: int, reason: str) -> str:
    match code:
        case 404 | 410:
            return f"the server has no such file ({code})"
        case 401 | 403:
            return f"the server refuses access ({code})"
    return f"the server answers {code} {reason}"


def _retry_after(value: str) -> float:
    """The wait in seconds that the server requests, as a number or a date; 0 if it gives neither."""
    if value.isdecimal():
        return float(value[:6])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
