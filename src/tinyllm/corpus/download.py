"""One large file over HTTP, for connections that break: the file is there in the end and right, or it is not there.

What has come is kept in `NAME.part`, with `NAME.part.json` saying of which version it is a part. A broken connection
is taken up with Range and If-Range (RFC 9110), after waits that double; a server that has another version by then, or
knows no ranges, sends all of it again. The part is renamed only when its size, its SHA-256 where one is known, and
otherwise the checksums inside compressed files are right. It unpacks nothing: documents are read from the archive.
"""

import re
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import cast
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from tinyllm import storage
from tinyllm.corpus.formats import format_of
from tinyllm.corpus.streams import open_bytes
from tinyllm.errors import DownloadError, FormatError, UsageError
from tinyllm.version import __version__

MAX_FAILURES = 5
LONGEST_WAIT_SECONDS = 120.0
_CHUNK_BYTES = 2**18
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    expected_bytes: int | None = None,
    report: Callable[[int, int | None], None] | None = None,
    note: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    timeout_seconds: float = 30.0,
) -> Path:
    """Fetches `url` to `target`, going on with an earlier part; a target that is already right stays as it is.

    `report` is called with the bytes there are and those there will be (None if unknown), `note` with one line each
    time something goes wrong and is tried again; up to 5 times in a row without a new byte.
    Raises UsageError for what is no http address or checksum, ArtifactError if the disk refuses, DownloadError for
    everything else; the part stays only if the same call can go on with it.
    """
    _check_request(url, sha256)
    storage.check_writable(target)
    transfer = _Transfer(url, target, sha256, expected_bytes, report or (lambda *_: None), timeout_seconds)
    with storage.exclusive(target.parent, target.name):
        if target.exists():
            _check_existing(target, sha256, expected_bytes)
            return target
        try:
            _persist(transfer, note or (lambda _: None), sleep)
            storage.publish_file(transfer.part, target)
        except OSError as error:
            raise DownloadError(f"cannot write {error.filename}: {error.strerror}") from error
        finally:
            transfer.tidy()
    return target


class _Setback(Exception):
    """Something that may go better next time."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class _Version(BaseModel):
    """What a part is a part of."""

    model_config = ConfigDict(frozen=True, strict=True)

    url: str
    validator: str
    """A strong ETag, else a date; empty if the server gave neither, and then the part is of no further use."""
    total_bytes: int | None


def _persist(transfer: "_Transfer", note: Callable[[str], None], sleep: Callable[[float], None]) -> None:
    """Attempts until one succeeds; gives up after `MAX_FAILURES` in a row that brought nothing new."""
    most_bytes = num_failures = 0
    while True:
        try:
            return transfer.attempt()
        except _Setback as setback:
            num_bytes = transfer.kept_bytes()
            num_failures = 1 if num_bytes > most_bytes else num_failures + 1
            most_bytes = max(most_bytes, num_bytes)
            if num_failures > MAX_FAILURES:
                kept = f"; run the same command again to go on from byte {num_bytes}" if num_bytes else ""
                raise DownloadError(f"{transfer.url}: {setback}, {num_failures} times in a row{kept}") from None
            wait_seconds = min(max(2.0 ** (num_failures - 1), setback.wait_seconds), LONGEST_WAIT_SECONDS)
            note(f"{setback}; trying again in {wait_seconds:.0f} s, from byte {num_bytes}")
            sleep(wait_seconds)


class _Transfer:
    """The state of one download: what is asked for, and the part on the disk."""

    def __init__(
        self,
        url: str,
        target: Path,
        sha256: str | None,
        expected_bytes: int | None,
        report: Callable[[int, int | None], None],
        timeout_seconds: float,
    ) -> None:
        self.url = url
        self.part = target.with_name(target.name + ".part")
        self.sidecar = target.with_name(target.name + ".part.json")
        self._target = target
        self._sha256 = sha256
        self._expected_bytes = expected_bytes
        self._report = report
        self._timeout_seconds = timeout_seconds

    def attempt(self) -> None:
        """Asks for what is missing, once; on return the part is whole and right. Raises _Setback or DownloadError."""
        version = self._version_of_part()
        start = self.kept_bytes()
        if not (version and start == version.total_bytes):
            self._fetch(version, start)
        self._check_content(was_resumed=start > 0)

    def kept_bytes(self) -> int:
        """How much there is already that the next attempt can go on from."""
        return self.part.stat().st_size if self._version_of_part() else 0

    def drop(self) -> None:
        """Forgets the part."""
        self.part.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Removes what no later call could use."""
        if not self.kept_bytes():
            self.sidecar.unlink(missing_ok=True)
            if self.part.is_file():
                self.part.unlink()

    def _version_of_part(self) -> _Version | None:
        """Of which version the part is; None if there is none, or none that can be taken up."""
        try:
            version = _Version.model_validate_json(self.sidecar.read_bytes())
        except (OSError, ValueError):
            return None
        return version if version.url == self.url and version.validator and self.part.exists() else None

    def _fetch(self, version: _Version | None, start: int) -> None:
        with self._open(version, start) as response:
            if response.status == 206 and version:
                self._check_continuation(response, version, start)
            else:
                version, start = self._begin(response), 0
            total_bytes = version.total_bytes
            if total_bytes is not None:
                storage.check_room(self.part, total_bytes - start)
            with storage.append_file(self.part, start) as file:
                self._report(start, total_bytes)
                for chunk in _receive(response):
                    file.write(chunk)
                    start += len(chunk)
                    self._report(start, total_bytes)
        if total_bytes is not None and start < total_bytes:
            raise _Setback(f"the connection ended after {start} of {total_bytes} bytes")

    def _open(self, version: _Version | None, start: int) -> HTTPResponse:
        headers = {"User-Agent": f"tinyllm/{__version__}", "Accept-Encoding": "identity"}
        if version and start:
            headers |= {"Range": f"bytes={start}-", "If-Range": version.validator}
        try:
            response = _opener().open(request.Request(self.url, headers=headers), timeout=self._timeout_seconds)
        except HTTPError as error:
            error.close()
            if error.code == 416:
                self.drop()
                raise _Setback("the server's file is shorter than what had come of it (416)") from None
            if error.code in _PASSING:
                wait_seconds = _retry_after(error.headers.get("Retry-After", ""))
                raise _Setback(f"the server answers {error.code} {error.reason}", wait_seconds) from None
            raise DownloadError(f"{self.url}: {_refusal(error.code, error.reason)}") from None
        except (InvalidURL, UnicodeError) as error:
            raise DownloadError(f"{self.url} is not an address: {error}") from None
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise DownloadError(f"{self.url}: the server's certificate is not valid: {reason}") from None
            raise _Setback(f"no connection ({reason or type(reason).__name__})") from None
        return cast(HTTPResponse, response)

    def _check_continuation(self, response: HTTPResponse, version: _Version, start: int) -> None:
        """A 206 must continue exactly this part; not every server heeds If-Range."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        same_total = match is not None and match[2] in ("*", str(version.total_bytes))
        if not (match and int(match[1]) == start and same_total and _validator(response) == version.validator):
            self.drop()
            raise _Setback("the file changed on the server")

    def _begin(self, response: HTTPResponse) -> _Version:
        """Starts the part over with a response that has the whole file, if that can be what was asked for."""
        if response.status != 200:
            raise DownloadError(f"{self.url}: the server answers {response.status}, not with a file")
        if response.headers.get_content_type() == "text/html" and not self._target.name.endswith((".html", ".htm")):
            raise DownloadError(f"{self.url}: the server sent a web page, not a file; does the address need a login?")
        length = response.headers.get("Content-Length", "")
        total_bytes = int(length) if re.fullmatch(r"[0-9]{1,18}", length) and not response.chunked else None
        if total_bytes is None and not (response.chunked or self._sha256 or self._expected_bytes or self._is_packed()):
            raise DownloadError(
                f"{self.url}: the server does not say how long the file is, so a lost end would not be noticed; "
                "give its --sha256"
            )
        if self._expected_bytes is not None and total_bytes not in (None, self._expected_bytes):
            raise DownloadError(
                f"{self.url}: the server's file has {total_bytes} bytes, expected are {self._expected_bytes}; "
                "it is another version (to take it as it is, name its address with --url)"
            )
        version = _Version(url=self.url, validator=_validator(response), total_bytes=total_bytes)
        self.drop()
        storage.write_json(self.sidecar, version.model_dump())
        return version

    def _check_content(self, was_resumed: bool) -> None:
        """Drops a part that is whole but wrong; one that came in several pieces gets another chance."""
        complaint = _complaint(self.part, self._target.name, self._sha256, self._expected_bytes)
        if complaint:
            self.drop()
            if was_resumed:
                raise _Setback(f"the pieces do not make a whole: {complaint}")
            raise DownloadError(f"{self.url}: {complaint}; nothing was kept")

    def _is_packed(self) -> bool:
        """Whether the file itself tells its end, by a checksum there."""
        file_format = format_of(self._target.name)
        return file_format is not None and file_format.compression != "none"


def _opener() -> request.OpenerDirector:
    """HTTP and HTTPS with redirects and the system's proxies; no ftp, file or data addresses, not even by redirect."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _receive(response: HTTPResponse) -> Iterator[bytes]:
    """The body as it comes. A lost connection is a _Setback, so that an OSError outside is one of the disk."""
    while True:
        try:
            chunk = response.read1(_CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise _Setback(f"the connection was lost ({str(error) or type(error).__name__})") from None
        if not chunk:
            return
        yield chunk


def _validator(response: HTTPResponse) -> str:
    """What If-Range may name: a strong ETag, else a date; empty if there is neither."""
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return response.headers.get("Last-Modified", "")


def _complaint(part: Path, name: str, sha256: str | None, expected_bytes: int | None) -> str:
    """What is wrong with a file that has come whole; empty if nothing is."""
    num_bytes = part.stat().st_size
    if expected_bytes is not None and num_bytes != expected_bytes:
        return f"{num_bytes} bytes came, expected are {expected_bytes}"
    if sha256 is not None:
        found = storage.sha256_of(part)
        return "" if found == sha256.lower() else f"the SHA-256 is {found}, expected is {sha256.lower()}"
    file_format = format_of(name)
    if file_format is None or file_format.compression == "none":
        return ""
    try:
        with open_bytes(part, file_format.compression) as stream:
            while stream.read():
                pass
    except FormatError as error:
        return f"it is not a whole {file_format.compression} file: {error}"
    return ""


def _check_request(url: str, sha256: str | None) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url!r} is not an address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"{url!r} is not an address that begins with http:// or https://")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"{url!r} has characters that an address cannot have; write them as %XX")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"{sha256!r} is not a SHA-256; it has 64 hexadecimal digits")


def _check_existing(target: Path, sha256: str | None, expected_bytes: int | None) -> None:
    if not target.is_file():
        raise DownloadError(f"{target} is there and is not a file; choose another place")
    complaint = _complaint(target, "", sha256, expected_bytes)
    if complaint:
        complaint = complaint.replace(" came,", ",")
        raise DownloadError(f"{target} is there and is another file ({complaint}); remove it or choose another place")


def _refusal(code: int, reason: str) -> str:
    match code:
        case 404 | 410:
            return f"the server has no such file ({code})"
        case 401 | 403:
            return f"the server refuses access ({code})"
    return f"the server answers {code} {reason}"


def _retry_after(value: str) -> float:
    """Seconds that the server asks to wait: it says a number or a date; 0 if it says neither."""
    if value.isdecimal():
        return float(value[:6])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
