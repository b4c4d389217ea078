"""Downloads from a server that fails in every way end with the right file or with none."""

import contextlib
import email
import gzip
import hashlib
import io
import random
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.client import HTTPMessage
from pathlib import Path
from urllib import request
from urllib.response import addinfourl

import pytest

from loopback import Behaviour, FileServer, Handler, cut, hang_up, status, well, whole
from recorder import Recorder
from tinyllm import storage
from tinyllm.corpus.catalogue import KNOWN_CORPORA
from tinyllm.corpus.download import MAX_FAILURES, download
from tinyllm.corpus.formats import Format, format_of
from tinyllm.corpus.http_client import Redirects
from tinyllm.errors import ArtifactError, DownloadError, UsageError


class Fetch:
    """Downloads `data.bin` from the test's server without real waits; records notes, progress and waits."""

    def __init__(self, server: FileServer, folder: Path) -> None:
        self.server = server
        self.target = folder / "data.bin"
        self.waits: list[float] = []
        self.recorder = Recorder()

    def __call__(self, **options: object) -> bytes:
        path = download(
            f"{self.server.address}/{self.target.name}",
            self.target,
            sleep=self.waits.append,
            reporter=self.recorder,
            **options,  # type: ignore[arg-type]
        )
        assert path == self.target
        return path.read_bytes()

    @property
    def notes(self) -> list[str]:
        return self.recorder.notes

    @property
    def reports(self) -> list[tuple[int, int | None]]:
        """Bytes received and bytes in total, of each report."""
        return [(progress.done, progress.total) for progress in self.recorder.progress]

    def leftovers(self) -> set[str]:
        """The names in the folder, with "draft" in place of a draft's name."""
        drafts = {draft.folder for draft in storage.drafts_of(self.target)}
        return {"draft" if path in drafts else path.name for path in self.target.parent.iterdir()}

    @property
    def part(self) -> Path:
        """The part in the target's draft."""
        (draft,) = storage.drafts_of(self.target)
        return draft.new


@pytest.fixture
def fetch(file_server: FileServer, tmp_path: Path) -> Fetch:
    return Fetch(file_server, tmp_path / "new" / "folder")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_download_leaves_only_the_file(fetch: Fetch) -> None:
    total = len(fetch.server.content)
    assert fetch(sha256=sha256(fetch.server.content).upper(), expected_bytes=total) == fetch.server.content
    assert fetch.leftovers() == {"data.bin"}
    assert (fetch.reports[0], fetch.reports[-1]) == ((0, total), (total, total))
    assert fetch.notes == []


def test_an_empty_file_is_downloaded(fetch: Fetch) -> None:
    fetch.server.content = b""
    assert fetch() == b""


class TestResume:
    def test_a_cut_connection_is_resumed(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), cut(50_000)]
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, "bytes=100000-", "bytes=150000-"]
        assert [request.get("If-Range") for request in fetch.server.requests] == [None, '"version-1"', '"version-1"']
        assert "ended after 100000 of 256000 bytes; trying again in 1 s, from byte 100000" in fetch.notes[0]

    def test_a_later_call_resumes_the_part(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000)] + [hang_up] * (MAX_FAILURES + 1)
        with pytest.raises(DownloadError, match="run the same command again to go on from byte 100000"):
            fetch()
        assert fetch.leftovers() == {"draft"}
        assert fetch() == fetch.server.content
        assert fetch.server.ranges()[-1] == "bytes=100000-"
        assert fetch.leftovers() == {"data.bin"}

    def test_a_part_of_another_address_is_not_resumed(self, fetch: Fetch, tmp_path: Path) -> None:
        fetch.server.plan = [cut(100_000), status(404)]
        with pytest.raises(DownloadError):
            fetch()
        fetch.server.content = b"another file"
        assert download(f"{fetch.server.address}/other", fetch.target).read_bytes() == b"another file"
        assert fetch.server.ranges()[-1] is None

    def test_a_complete_part_is_verified_without_a_request(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), status(404)]
        with pytest.raises(DownloadError):
            fetch()
        fetch.part.write_bytes(fetch.server.content)
        assert fetch() == fetch.server.content
        assert len(fetch.server.requests) == 2

    def test_a_server_that_ignores_ranges_sends_the_whole_file_again(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), whole]
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, "bytes=100000-"]

    @pytest.mark.parametrize("respects_if_range", [True, False])
    def test_a_file_that_changed_is_fetched_from_its_beginning(self, fetch: Fetch, respects_if_range: bool) -> None:
        def change(handler: Handler, server: FileServer) -> None:
            server.content, server.etag = b"b" * 200_000, '"version-2"'
            if respects_if_range:
                return well(handler, server)
            handler.start(206, Content_Length=100_000, ETag=server.etag, Content_Range="bytes 100000-199999/200000")
            handler.wfile.write(server.content[100_000:])
            return None

        fetch.server.plan = [cut(100_000), change]
        assert fetch() == b"b" * 200_000

    @pytest.mark.parametrize("span", ["bytes 0-255999/256000", "bytes 100000-255999/300000", "nonsense", None])
    def test_a_wrong_range_is_not_used(self, fetch: Fetch, span: str | None) -> None:
        def answer(handler: Handler, server: FileServer) -> None:
            handler.start(206, Content_Length=len(server.content), ETag=server.etag, Content_Range=span)
            handler.wfile.write(server.content)

        fetch.server.plan = [cut(100_000), answer]
        assert fetch() == fetch.server.content

    @pytest.mark.parametrize("etag", [None, 'W/"weak"'])
    def test_a_part_without_a_strong_validator_is_not_resumed(self, fetch: Fetch, etag: str | None) -> None:
        fetch.server.etag = etag
        fetch.server.plan = [cut(100_000)]
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, None]

    def test_a_date_is_a_validator(self, fetch: Fetch) -> None:
        date = "Wed, 21 Oct 2015 07:28:00 GMT"

        def first(handler: Handler, server: FileServer) -> None:
            handler.start(200, Content_Length=len(server.content), Last_Modified=date)
            handler.wfile.write(server.content[:10])

        fetch.server.plan = [first]
        assert fetch() == fetch.server.content
        assert fetch.server.requests[1]["If-Range"] == date

    def test_a_file_that_became_shorter_is_fetched_again(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), status(416)]
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, "bytes=100000-", None]

    def test_a_damaged_sidecar_restarts_the_download(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), status(404)]
        with pytest.raises(DownloadError):
            fetch()
        fetch.part.with_name("version.json").write_text('{"url": 1')
        assert fetch() == fetch.server.content
        assert fetch.server.ranges()[-1] is None

    def test_wrong_joined_pieces_are_fetched_again_once(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), status(404)]
        with pytest.raises(DownloadError):
            fetch()
        part = fetch.part
        part.write_bytes(b"x" * part.stat().st_size)
        assert fetch(sha256=sha256(fetch.server.content)) == fetch.server.content
        assert "the joined pieces are wrong" in fetch.notes[-1]


class TestFailures:
    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (404, "no such file"),
            (403, "refuses access"),
            (400, "answers 400 Bad Request"),
            (204, "answers 204, not with a"),
        ],
    )
    def test_final_errors_are_not_retried(self, fetch: Fetch, code: int, message: str) -> None:
        fetch.server.plan = [status(code)]
        with pytest.raises(DownloadError, match=message):
            fetch()
        assert len(fetch.server.requests) == 1
        assert fetch.leftovers() == set()

    def test_temporary_errors_are_retried_with_doubling_waits(self, fetch: Fetch) -> None:
        fetch.server.plan = [status(503), status(500), status(429), hang_up]
        assert fetch() == fetch.server.content
        assert fetch.waits == [1, 2, 4, 8]

    def test_it_gives_up_after_the_maximum_of_failures(self, fetch: Fetch) -> None:
        fetch.server.plan = [status(503)] * 100
        with pytest.raises(DownloadError, match=r"answers 503 Service Unavailable, 6 times in a row$"):
            fetch()
        assert len(fetch.server.requests) == MAX_FAILURES + 1
        assert fetch.leftovers() == set()

    def test_each_new_byte_resets_the_count_of_failures(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(1000)] * 30
        assert fetch() == fetch.server.content
        assert set(fetch.waits) == {1}

    @pytest.mark.parametrize(
        ("value", "least", "most"),
        [
            ("7", 7, 7),
            ("99999", 120, 120),
            (format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True), 1, 90),
            ("soon", 1, 1),
        ],
        ids=["seconds", "too many seconds", "a date", "no number"],
    )
    def test_retry_after_is_respected_up_to_two_minutes(
        self, fetch: Fetch, value: str, least: float, most: float
    ) -> None:
        fetch.server.plan = [status(503, Retry_After=value)]
        assert fetch() == fetch.server.content
        assert least <= fetch.waits[0] <= most

    def test_a_claimed_length_that_is_too_large_is_refused(self, fetch: Fetch) -> None:
        def lie(handler: Handler, server: FileServer) -> None:
            handler.start(200, Content_Length=len(server.content) + 1, ETag=server.etag)
            handler.wfile.write(server.content)

        fetch.server.plan = [lie] * 100
        with pytest.raises(DownloadError, match="ended after 256000 of 256001 bytes"):
            fetch()
        assert not fetch.target.exists()

    @pytest.mark.parametrize("known", ["sha256", "expected_bytes", "gzip"])
    def test_a_claimed_length_that_is_too_small_is_refused(self, fetch: Fetch, known: str) -> None:
        content = fetch.server.content = gzip.compress(random.Random(1).randbytes(50_000))

        def lie(handler: Handler, server: FileServer) -> None:
            handler.start(200, Content_Length=len(content) - 1)
            handler.wfile.write(content)

        fetch.server.plan = [lie]
        if known == "gzip":
            fetch.target = fetch.target.with_name("data.txt.gz")
        facts = {"sha256": sha256(content), "expected_bytes": len(content)}
        with pytest.raises(DownloadError, match=r"SHA-256 is|bytes instead of|not a whole gzip file"):
            fetch(**{name: value for name, value in facts.items() if name == known})
        assert fetch.leftovers() == set()

    def test_a_wrong_checksum_is_refused(self, fetch: Fetch) -> None:
        with pytest.raises(DownloadError, match=f"SHA-256 is {sha256(fetch.server.content)} instead of {'0' * 64}"):
            fetch(sha256="0" * 64)
        assert fetch.leftovers() == set()
        assert len(fetch.server.requests) == 1

    def test_another_version_is_refused_before_its_body_is_read(self, fetch: Fetch) -> None:
        with pytest.raises(DownloadError, match=r"has 256000 bytes instead of 5; .*`url`"):
            fetch(expected_bytes=5)
        assert fetch.reports == []

    def test_a_web_page_is_refused(self, fetch: Fetch) -> None:
        def login(handler: Handler, server: FileServer) -> None:
            handler.start(200, Content_Length=6, Content_Type="text/html; charset=utf-8")
            handler.wfile.write(b"<html>")

        fetch.server.plan = [login]
        with pytest.raises(DownloadError, match="a web page, not a file"):
            fetch()

    def test_a_web_page_without_its_content_type_is_no_archive(self, fetch: Fetch) -> None:
        fetch.target = fetch.target.with_name("data.tar.gz")
        fetch.server.content = b"<html>please log in</html>"
        with pytest.raises(DownloadError, match="not a whole gzip file"):
            fetch()
        assert fetch.leftovers() == set()

    def test_a_body_of_unknown_length_needs_a_checksum(self, fetch: Fetch) -> None:
        def stream(handler: Handler, server: FileServer) -> None:
            handler.start(200, ETag=server.etag)
            handler.wfile.write(server.content)

        fetch.server.plan = [stream, stream]
        with pytest.raises(DownloadError, match="does not say how long"):
            fetch()
        assert fetch(sha256=sha256(fetch.server.content)) == fetch.server.content

    @pytest.mark.parametrize("is_whole", [True, False])
    def test_the_end_of_a_chunked_body_is_known(self, fetch: Fetch, is_whole: bool) -> None:
        def stream(handler: Handler, server: FileServer) -> None:
            handler.protocol_version = "HTTP/1.1"
            handler.start(200, Transfer_Encoding="chunked")
            handler.wfile.write(b"5\r\nhello\r\n" + (b"0\r\n\r\n" if is_whole else b""))
            handler.close_connection = True

        fetch.server.plan = [stream]
        assert fetch() == (b"hello" if is_whole else fetch.server.content)

    def test_a_refused_connection_is_named(self, fetch: Fetch) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            fetch.server.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(DownloadError, match=r"no connection \(.*refused\), 6 times in a row"):
            fetch()

    def test_a_silent_server_times_out(self, fetch: Fetch) -> None:
        def fall_silent(handler: Handler, server: FileServer) -> None:
            well(handler, server, stop_after=1000)
            handler.wfile.flush()
            handler.connection.settimeout(5)
            handler.connection.recv(1)  # returns when the client has given up

        fetch.server.plan = [fall_silent]
        assert fetch(timeout_seconds=0.2) == fetch.server.content
        assert "timed out" in fetch.notes[0]

    def test_redirects_are_followed_but_not_to_other_schemes(self, fetch: Fetch, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        fetch.server.plan = [status(302, Location="/elsewhere")]
        assert fetch() == fetch.server.content
        assert fetch.server.requests[1]["path"] == "/elsewhere"
        fetch.target.unlink()
        fetch.server.plan = [status(302, Location=f"file://{tmp_path}/secret")]
        with pytest.raises(DownloadError, match="302"):
            fetch()

    @pytest.mark.parametrize("hops", [["https", "http"], ["http", "https", "http"], ["https", "https", "http"]])
    def test_https_is_never_left_for_http(self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, hops: list[str]) -> None:
        """Each hop redirects to the next scheme; the last one is the test's server, which must receive no request."""
        left = [f"{scheme}://somewhere/data.bin" for scheme in hops[1:-1]] + [f"{fetch.server.address}/data.bin"]

        def answer(_: request.HTTPHandler, asked: request.Request) -> addinfourl:
            headers = email.message_from_string(f"Location: {left.pop(0)}\n\n", _class=HTTPMessage)
            response = addinfourl(io.BytesIO(), headers, asked.full_url, 302)
            response.msg = "Found"  # type: ignore[attr-defined]
            return response

        monkeypatch.setattr(request.HTTPSHandler, "https_open", answer)
        monkeypatch.setattr(request.HTTPHandler, "http_open", answer)
        with pytest.raises(DownloadError, match=r"redirects to http://127.* not encrypted"):
            download(f"{hops[0]}://somewhere/data.bin", fetch.target)
        assert left == []
        assert fetch.server.requests == []
        assert fetch.leftovers() == set()

    def test_https_and_http_may_redirect_to_https(self) -> None:
        for url in ("http://a/x", "https://a/x"):
            followed = Redirects().redirect_request(
                request.Request(url), io.BytesIO(), 302, "Found", HTTPMessage(), "HTTPS://b/y"
            )
            assert followed is not None
            assert followed.full_url == "HTTPS://b/y"

    def test_a_body_without_end_stops_before_the_disk_is_full(
        self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a disk of 100 MB with 10 MB free, 5 MB stay free."""
        received = 0

        def stream(handler: Handler, server: FileServer) -> None:
            handler.protocol_version = "HTTP/1.1"
            handler.start(200, Transfer_Encoding="chunked", ETag=server.etag)
            with contextlib.suppress(OSError):  # the client hangs up
                while True:
                    handler.wfile.write(b"10000\r\n" + bytes(2**16) + b"\r\n")

        def usage(folder: Path) -> object:
            nonlocal received
            received = sum(path.stat().st_size for path in Path(folder).iterdir())
            return type("Usage", (), {"total": 100_000_000, "free": 10_000_000 - received})

        monkeypatch.setattr("shutil.disk_usage", usage)
        fetch.server.plan = [stream] * 9
        with pytest.raises(DownloadError, match=r"does not say how long .* bytes free; make room.*nothing was kept"):
            fetch()
        assert 4_000_000 < received <= 5_000_000
        assert fetch.leftovers() == set()

    def test_a_body_longer_than_expected_is_stopped(self, fetch: Fetch) -> None:
        def stream(handler: Handler, server: FileServer) -> None:
            handler.protocol_version = "HTTP/1.1"
            handler.start(200, Transfer_Encoding="chunked")
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    handler.wfile.write(b"10000\r\n" + bytes(2**16) + b"\r\n")

        fetch.server.plan = [stream]
        with pytest.raises(DownloadError, match="sends more than the 100000 bytes of the file; nothing was kept"):
            fetch(expected_bytes=100_000)
        assert max(num_bytes for num_bytes, _ in fetch.reports) <= 100_000
        assert fetch.leftovers() == set()

    def test_a_continuation_longer_than_the_rest_restarts_the_download(self, fetch: Fetch) -> None:
        def go_on_too_long(handler: Handler, server: FileServer) -> None:
            total = len(server.content)
            handler.start(206, ETag=server.etag, Content_Range=f"bytes 1000-{total - 1}/{total}")
            handler.wfile.write(server.content[1000:] + b"more")

        fetch.server.plan = [cut(1000), go_on_too_long]
        assert fetch() == fetch.server.content
        assert any("sends more than the 256000 bytes" in line for line in fetch.notes)

    def test_a_full_disk_is_not_blamed_on_the_server(self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        with pytest.raises(ArtifactError, match="needs 256000 bytes more and 1000 are free"):
            fetch()
        assert fetch.leftovers() == set()

    def test_a_failed_write_keeps_the_part(self, fetch: Fetch) -> None:
        resource = pytest.importorskip("resource", reason="Windows limits no file's size")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            with pytest.raises(ArtifactError, match=r"data\.bin: File too large after 200000 bytes"):
                fetch()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, "bytes=200000-"]

    def test_other_files_with_similar_names_are_kept(self, fetch: Fetch) -> None:
        names = ["data.bin.part", "data.bin.part.json", "data.bin.tmp", ".data.bin.lock"]
        fetch.target.parent.mkdir(parents=True)
        for name in names:
            fetch.target.with_name(name).write_text("mine")
        assert fetch() == fetch.server.content
        assert fetch.leftovers() == {"data.bin", *names}
        assert {fetch.target.with_name(name).read_text() for name in names} == {"mine"}


class TestExistingTarget:
    def test_a_correct_file_is_not_fetched_again(self, fetch: Fetch) -> None:
        content = fetch()
        assert fetch(sha256=sha256(content), expected_bytes=len(content)) == content
        assert len(fetch.server.requests) == 1

    @pytest.mark.parametrize("facts", [{"sha256": "0" * 64}, {"expected_bytes": 5}])
    def test_another_file_is_not_overwritten(self, fetch: Fetch, facts: dict[str, object]) -> None:
        content = fetch()
        with pytest.raises(DownloadError, match=r"data\.bin exists and is another file"):
            fetch(**facts)
        assert fetch.target.read_bytes() == content

    def test_a_folder_is_refused(self, fetch: Fetch) -> None:
        fetch.target.mkdir(parents=True)
        with pytest.raises(DownloadError, match="is not a file"):
            fetch()

    def test_two_downloads_of_one_file_do_not_mix(self, fetch: Fetch) -> None:
        with (
            storage.open_draft(fetch.target, "download"),
            pytest.raises(ArtifactError, match=r"data\.bin is being written by another process"),
        ):
            fetch()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "begins with http"),
        ("ftp://example.org/a", "begins with http"),
        ("example.org/a", "begins with http"),
        ("http://", "begins with http"),
        ("http://[::1/a", "not an address"),
        ("http://127.0.0.1/a b", "%XX"),
        ("http://127.0.0.1/ä", "%XX"),
    ],
)
def test_invalid_addresses_are_refused(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        download(url, tmp_path / "a")


def test_invalid_ports_and_checksums_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is not an address"):
        download("http://127.0.0.1:port/a", tmp_path / "a")
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        download("http://127.0.0.1/a", tmp_path / "a", sha256="abc")


@pytest.mark.parametrize("seed", range(40))
def test_the_file_is_right_or_absent_after_any_server_behaviour(fetch: Fetch, seed: int) -> None:
    """The server answers thirty requests at random in one of the ways above, and its file may change in between."""
    draw = random.Random(seed)

    def change(handler: Handler, server: FileServer) -> None:
        server.etag = f'"version-{draw.random()}"'
        server.content = draw.randbytes(draw.randrange(1, 300_000))
        draw.choice([well, whole, cut(draw.randrange(100_000))])(handler, server)

    makers: list[Callable[[], Behaviour]] = [
        lambda: cut(draw.randrange(100_000)),
        lambda: cut(0),
        lambda: change,
        lambda: whole,
        lambda: hang_up,
        lambda: status(draw.choice([503, 500, 416, 404])),
        lambda: partial(well, stop_after=draw.randrange(300_000)),
    ]
    fetch.server.plan = [draw.choice(makers)() for _ in range(30)]
    for _ in range(10):
        try:
            content = fetch()
        except DownloadError:
            assert not fetch.target.exists()
        else:
            assert content == fetch.server.content
            assert fetch.leftovers() == {"data.bin"}
            return
    pytest.fail("the server behaves well after the plan, so one of ten calls must succeed")


@pytest.mark.parametrize("name", KNOWN_CORPORA)
def test_known_corpora_are_readable_and_checked(name: str) -> None:
    corpus = KNOWN_CORPORA[name]
    assert format_of(corpus.file_name) == Format("tar", "gzip")
    assert len(corpus.sha256) == 64
    assert all(url.startswith("https://") and url.endswith("/" + corpus.file_name) for url in corpus.urls.values())
