"""Downloads one large file over HTTP: at the end, the complete and verified file exists, or none does.

A draft (see `storage`) keeps the part that has arrived, with the version of the file on the server. After a broken
connection, the download resumes with Range and If-Range (RFC 9110), with doubling waits. A server that ignores ranges
or has another version sends the whole file again. Before the part is renamed, its size is checked, and its SHA-256 or
the checksums inside compressed files. Nothing is unpacked: documents are read from the archive.
"""

import re
import time
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from tinyllm import storage
from tinyllm.corpus.formats import format_of
from tinyllm.corpus.http_client import CHUNK_BYTES, RangeSetback, Setback, open_address, receive, validator_of
from tinyllm.corpus.streams import open_bytes
from tinyllm.errors import DownloadError, FormatError, UsageError
from tinyllm.progress import SILENT, Note, Progress, Reporter

KIND = "download"
"""The kind of the draft that holds the part."""
MAX_FAILURES = 5
LONGEST_WAIT_SECONDS = 120.0
RESERVED_BYTES = 2**30
"""Free disk space to leave if the server sends no length; on a small disk a twentieth of its size."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    expected_bytes: int | None = None,
    reporter: Reporter = SILENT,
    sleep: Callable[[float], None] = time.sleep,
    timeout_seconds: float = 30.0,
) -> Path:
    """Downloads `url` to `target`, resuming an earlier part; a `target` that is already correct stays unchanged.

    `reporter` receives the bytes that have arrived, and one line before each retry. At most 5 retries in a row bring
    no new byte.
    Raises UsageError for an invalid address or checksum, ArtifactError if the disk refuses, DownloadError for every
    other failure. The part is kept only if the same call can resume it.
    """
    _check_request(url, sha256)
    storage.check_writable(target)
    if target.exists():
        _check_existing(target, sha256, expected_bytes)
        return target
    try:
        with storage.open_draft(storage.follow_link(target), KIND, resumable=True) as draft:
            transfer = _Transfer(url, draft, sha256, expected_bytes, reporter, timeout_seconds)
            try:
                _retry(transfer, reporter.note, sleep)
                storage.disk.sync(transfer.part)
                storage.publish_file(draft, transfer.part)
            finally:
                draft.keep = transfer.kept_bytes() > 0
    except OSError as error:
        raise DownloadError(f"cannot write {error.filename or target}: {error.strerror}") from error
    return target


class _Version(BaseModel):
    """The version of a remote file that a part belongs to."""

    model_config = ConfigDict(frozen=True, strict=True)

    url: str
    validator: str
    """A strong ETag, else a date; empty if the server sent neither, and then the part cannot be resumed."""
    total_bytes: int | None


def _retry(transfer: "_Transfer", note: Note, sleep: Callable[[float], None]) -> None:
    """Attempts the transfer until it succeeds; gives up after `MAX_FAILURES` in a row without a new byte."""
    most_bytes = num_failures = 0
    while True:
        try:
            return transfer.attempt()
        except Setback as setback:
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
    """The state of one download: the request and the part on disk."""

    def __init__(
        self,
        url: str,
        draft: storage.Draft,
        sha256: str | None,
        expected_bytes: int | None,
        reporter: Reporter,
        timeout_seconds: float,
    ) -> None:
        self.url = url
        self.part = draft.new
        self.sidecar = draft.folder / "version.json"
        self._draft = draft
        self._target = draft.target
        self._sha256 = sha256
        self._expected_bytes = expected_bytes
        self._reporter = reporter
        self._timeout_seconds = timeout_seconds

    def attempt(self) -> None:
        """Requests the missing bytes once, then verifies the complete part. Raises Setback or DownloadError."""
        version = self._version_of_part()
        start = self.kept_bytes()
        if not (version and start == version.total_bytes):
            self._fetch(version, start)
        self._check_content(was_resumed=start > 0)

    def kept_bytes(self) -> int:
        """The number of bytes that the next attempt can resume from."""
        return self.part.stat().st_size if self._version_of_part() else 0

    def _report(self, num_bytes: int, total_bytes: int | None) -> None:
        self._reporter.advance(Progress(self._target.name, num_bytes, total_bytes, "bytes"))

    def drop(self) -> None:
        """Removes the part."""
        for path in (self.part, self.sidecar):
            if path.exists():
                storage.disk.remove_file(path)

    def _version_of_part(self) -> _Version | None:
        """The version that the part belongs to; None if there is no part or it cannot be resumed."""
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
                storage.check_room(self._target, total_bytes - start)
            was_resumed, fault = start > 0, ""
            with storage.append_file(self._draft, start) as file:
                self._report(start, total_bytes)
                for chunk in receive(response):
                    if fault := self._excess(start + len(chunk), total_bytes):
                        break
                    file.write(chunk)
                    start += len(chunk)
                    self._report(start, total_bytes)
        if fault:
            self.drop()
            if was_resumed:
                raise Setback(fault)
            raise DownloadError(f"{self.url}: {fault}; nothing was kept")
        if total_bytes is not None and start < total_bytes:
            raise Setback(f"the connection ended after {start} of {total_bytes} bytes")

    def _excess(self, num_bytes: int, total_bytes: int | None) -> str:
        """The reason why the part must not grow to `num_bytes`; empty if it may.

        A body without a length may never end, so it is stopped before the disk is full.
        """
        limit = self._expected_bytes if total_bytes is None else total_bytes
        if limit is not None:
            return f"the server sends more than the {limit} bytes of the file" if num_bytes > limit else ""
        if storage.keeps_reserve(self.part.parent, CHUNK_BYTES, RESERVED_BYTES):
            return ""
        return (
            f"the server does not say how long the file is, and after {num_bytes} bytes the disk of {self._target} has "
            f"{storage.free_bytes(self.part.parent)} bytes free; make room or choose another disk"
        )

    def _open(self, version: _Version | None, start: int) -> HTTPResponse:
        headers = {"Range": f"bytes={start}-", "If-Range": version.validator} if version and start else {}
        try:
            return open_address(self.url, headers, self._timeout_seconds)
        except RangeSetback:
            self.drop()
            raise

    def _check_continuation(self, response: HTTPResponse, version: _Version, start: int) -> None:
        """Checks that a 206 response continues this part, because not every server respects If-Range."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        same_total = match is not None and match[2] in ("*", str(version.total_bytes))
        if not (match and int(match[1]) == start and same_total and validator_of(response) == version.validator):
            self.drop()
            raise Setback("the file changed on the server")

    def _begin(self, response: HTTPResponse) -> _Version:
        """Starts the part again from a response with the whole file, after a check that it can be the right file."""
        if response.status != 200:
            raise DownloadError(f"{self.url}: the server answers {response.status}, not with a file")
        if response.headers.get_content_type() == "text/html" and not self._target.name.endswith((".html", ".htm")):
            raise DownloadError(f"{self.url}: the server sent a web page, not a file; does the address need a login?")
        length = response.headers.get("Content-Length", "")
        total_bytes = int(length) if re.fullmatch(r"[0-9]{1,18}", length) and not response.chunked else None
        if total_bytes is None and not (response.chunked or self._sha256 or self._expected_bytes or self._is_packed()):
            raise DownloadError(
                f"{self.url}: the server does not say how long the file is, so a missing end would not be noticed",
                hint="give its `sha256`",
            )
        if self._expected_bytes is not None and total_bytes not in (None, self._expected_bytes):
            raise DownloadError(
                f"{self.url}: the server's file has {total_bytes} bytes instead of {self._expected_bytes}; "
                "it is another version",
                hint="to take it as it is, name its address with `url`",
            )
        version = _Version(url=self.url, validator=validator_of(response), total_bytes=total_bytes)
        self.drop()
        storage.write_json(self.sidecar, version.model_dump())
        return version

    def _check_content(self, was_resumed: bool) -> None:
        """Removes a complete but wrong part, and raises: Setback if it was resumed, else DownloadError."""
        fault = _find_fault(self.part, self._target.name, self._sha256, self._expected_bytes)
        if fault:
            self.drop()
            if was_resumed:
                raise Setback(f"the joined pieces are wrong: {fault}")
            raise DownloadError(f"{self.url}: {fault}; nothing was kept")

    def _is_packed(self) -> bool:
        """Whether the file's compression has a checksum, which shows a missing end."""
        file_format = format_of(self._target.name)
        return file_format is not None and file_format.compression != "none"


def _find_fault(part: Path, name: str, sha256: str | None, expected_bytes: int | None) -> str:
    """The fault of a fully received file; empty if it has none."""
    num_bytes = part.stat().st_size
    if expected_bytes is not None and num_bytes != expected_bytes:
        return f"it has {num_bytes} bytes instead of {expected_bytes}"
    if sha256 is not None:
        found = storage.sha256_of(part)
        return "" if found == sha256.lower() else f"its SHA-256 is {found} instead of {sha256.lower()}"
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
        raise DownloadError(f"{target} exists and is not a file; choose another place")
    fault = _find_fault(target, "", sha256, expected_bytes)
    if fault:
        raise DownloadError(f"{target} exists and is another file ({fault}); remove it or choose another place")
