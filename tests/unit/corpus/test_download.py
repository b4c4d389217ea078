"""Downloads from a server that does everything wrong: in the end the file is right, or it is not there."""

import gzip
import hashlib
import random
import resource
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import pytest

from loopback import Behaviour, FileServer, Handler, cut, hang_up, status, well, whole
from tinyllm import storage
from tinyllm.corpus.catalogue import KNOWN_CORPORA
from tinyllm.corpus.download import MAX_FAILURES, download
from tinyllm.corpus.formats import Format, format_of
from tinyllm.errors import ArtifactError, DownloadError, UsageError


class Fetch:
    """Downloads `data.bin` of the test's server without really waiting; notes what was said and how long it waited."""

    def __init__(self, server: FileServer, folder: Path) -> None:
        self.server = server
        self.target = folder / "data.bin"
        self.waits: list[float] = []
        self.notes: list[str] = []
        self.reports: list[tuple[int, int | None]] = []

    def __call__(self, **options: object) -> bytes:
        path = download(
            f"{self.server.address}/{self.target.name}",
            self.target,
            sleep=self.waits.append,
            note=self.notes.append,
            report=lambda *amounts: self.reports.append(amounts),
            **options,  # type: ignore[arg-type]
        )
        assert path == self.target
        return path.read_bytes()

    def leftovers(self) -> set[str]:
        return {path.name for path in self.target.parent.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def fetch(file_server: FileServer, tmp_path: Path) -> Fetch:
    return Fetch(file_server, tmp_path / "new" / "folder")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_fetched_and_nothing_else_is_left(fetch: Fetch) -> None:
    total = len(fetch.server.content)
    assert fetch(sha256=sha256(fetch.server.content).upper(), expected_bytes=total) == fetch.server.content
    assert fetch.leftovers() == {"data.bin"}
    assert (fetch.reports[0], fetch.reports[-1]) == ((0, total), (total, total))
    assert fetch.notes == []


def test_an_empty_file_is_a_file(fetch: Fetch) -> None:
    fetch.server.content = b""
    assert fetch() == b""


class TestResume:
    def test_a_cut_connection_is_taken_up_where_it_ended(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), cut(50_000)]
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, "bytes=100000-", "bytes=150000-"]
        assert [request.get("If-Range") for request in fetch.server.requests] == [None, '"version-1"', '"version-1"']
        assert "ended after 100000 of 256000 bytes; trying again in 1 s, from byte 100000" in fetch.notes[0]

    def test_a_later_call_goes_on_with_the_part(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000)] + [hang_up] * (MAX_FAILURES + 1)
        with pytest.raises(DownloadError, match="run the same command again to go on from byte 100000"):
            fetch()
        assert fetch.leftovers() == {"data.bin.part", "data.bin.part.json"}
        assert fetch() == fetch.server.content
        assert fetch.server.ranges()[-1] == "bytes=100000-"
        assert fetch.leftovers() == {"data.bin"}

    def test_a_part_of_another_address_is_not_taken_up(self, fetch: Fetch, tmp_path: Path) -> None:
        fetch.server.plan = [cut(100_000), status(404)]
        with pytest.raises(DownloadError):
            fetch()
        fetch.server.content = b"another file"
        assert download(f"{fetch.server.address}/other", fetch.target).read_bytes() == b"another file"
        assert fetch.server.ranges()[-1] is None

    def test_a_part_that_was_whole_before_the_power_went_is_only_checked(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), status(404)]
        with pytest.raises(DownloadError):
            fetch()
        fetch.target.with_name("data.bin.part").write_bytes(fetch.server.content)
        assert fetch() == fetch.server.content
        assert len(fetch.server.requests) == 2

    def test_a_server_that_ignores_ranges_sends_all_of_it_again(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), whole]
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, "bytes=100000-"]

    @pytest.mark.parametrize("heeds_if_range", [True, False])
    def test_a_file_that_changed_is_fetched_from_its_beginning(self, fetch: Fetch, heeds_if_range: bool) -> None:
        def change(handler: Handler, server: FileServer) -> None:
            server.content, server.etag = b"b" * 200_000, '"version-2"'
            if heeds_if_range:
                return well(handler, server)
            handler.start(206, Content_Length=100_000, ETag=server.etag, Content_Range="bytes 100000-199999/200000")
            handler.wfile.write(server.content[100_000:])
            return None

        fetch.server.plan = [cut(100_000), change]
        assert fetch() == b"b" * 200_000

    @pytest.mark.parametrize("span", ["bytes 0-255999/256000", "bytes 100000-255999/300000", "nonsense", None])
    def test_a_range_that_was_not_asked_for_is_not_used(self, fetch: Fetch, span: str | None) -> None:
        def answer(handler: Handler, server: FileServer) -> None:
            handler.start(206, Content_Length=len(server.content), ETag=server.etag, Content_Range=span)
            handler.wfile.write(server.content)

        fetch.server.plan = [cut(100_000), answer]
        assert fetch() == fetch.server.content

    @pytest.mark.parametrize("etag", [None, 'W/"weak"'])
    def test_without_a_strong_validator_parts_are_not_joined(self, fetch: Fetch, etag: str | None) -> None:
        fetch.server.etag = etag
        fetch.server.plan = [cut(100_000)]
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, None]

    def test_a_date_tells_versions_apart_as_well(self, fetch: Fetch) -> None:
        date = "Wed, 21 Oct 2015 07:28:00 GMT"

        def first(handler: Handler, server: FileServer) -> None:
            handler.start(200, Content_Length=len(server.content), Last_Modified=date)
            handler.wfile.write(server.content[:10])

        fetch.server.plan = [first]
        assert fetch() == fetch.server.content
        assert fetch.server.requests[1]["If-Range"] == date

    def test_a_file_that_became_shorter(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), status(416)]
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, "bytes=100000-", None]

    def test_a_damaged_sidecar_means_from_the_beginning(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), status(404)]
        with pytest.raises(DownloadError):
            fetch()
        fetch.target.with_name("data.bin.part.json").write_text('{"url": 1')
        assert fetch() == fetch.server.content
        assert fetch.server.ranges()[-1] is None

    def test_pieces_that_do_not_make_a_whole_are_fetched_anew_once_more(self, fetch: Fetch) -> None:
        fetch.server.plan = [cut(100_000), status(404)]
        with pytest.raises(DownloadError):
            fetch()
        part = fetch.target.with_name("data.bin.part")
        part.write_bytes(b"x" * part.stat().st_size)
        assert fetch(sha256=sha256(fetch.server.content)) == fetch.server.content
        assert "the pieces do not make a whole" in fetch.notes[-1]


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
    def test_final_answers_are_not_asked_for_again(self, fetch: Fetch, code: int, message: str) -> None:
        fetch.server.plan = [status(code)]
        with pytest.raises(DownloadError, match=message):
            fetch()
        assert len(fetch.server.requests) == 1
        assert fetch.leftovers() == set()

    def test_passing_answers_are_waited_for_twice_as_long_each_time(self, fetch: Fetch) -> None:
        fetch.server.plan = [status(503), status(500), status(429), hang_up]
        assert fetch() == fetch.server.content
        assert fetch.waits == [1, 2, 4, 8]

    def test_in_the_end_it_gives_up(self, fetch: Fetch) -> None:
        fetch.server.plan = [status(503)] * 100
        with pytest.raises(DownloadError, match=r"answers 503 Service Unavailable, 6 times in a row$"):
            fetch()
        assert len(fetch.server.requests) == MAX_FAILURES + 1
        assert fetch.leftovers() == set()

    def test_each_new_byte_gives_new_patience(self, fetch: Fetch) -> None:
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

    def test_a_length_too_large(self, fetch: Fetch) -> None:
        def lie(handler: Handler, server: FileServer) -> None:
            handler.start(200, Content_Length=len(server.content) + 1, ETag=server.etag)
            handler.wfile.write(server.content)

        fetch.server.plan = [lie] * 100
        with pytest.raises(DownloadError, match="ended after 256000 of 256001 bytes"):
            fetch()
        assert not fetch.target.exists()

    @pytest.mark.parametrize("known", ["sha256", "expected_bytes", "gzip"])
    def test_a_length_too_small(self, fetch: Fetch, known: str) -> None:
        content = fetch.server.content = gzip.compress(random.Random(1).randbytes(50_000))

        def lie(handler: Handler, server: FileServer) -> None:
            handler.start(200, Content_Length=len(content) - 1)
            handler.wfile.write(content)

        fetch.server.plan = [lie]
        if known == "gzip":
            fetch.target = fetch.target.with_name("data.txt.gz")
        facts = {"sha256": sha256(content), "expected_bytes": len(content)}
        with pytest.raises(DownloadError, match=r"SHA-256 is|bytes, expected are|not a whole gzip file"):
            fetch(**{name: value for name, value in facts.items() if name == known})
        assert fetch.leftovers() == set()

    def test_a_wrong_checksum(self, fetch: Fetch) -> None:
        with pytest.raises(DownloadError, match=f"SHA-256 is {sha256(fetch.server.content)}, expected is {'0' * 64}"):
            fetch(sha256="0" * 64)
        assert fetch.leftovers() == set()
        assert len(fetch.server.requests) == 1

    def test_another_version_is_refused_before_its_body_is_read(self, fetch: Fetch) -> None:
        with pytest.raises(DownloadError, match=r"has 256000 bytes, expected are 5; .*--url"):
            fetch(expected_bytes=5)
        assert fetch.reports == []

    def test_a_web_page_is_not_a_file(self, fetch: Fetch) -> None:
        def login(handler: Handler, server: FileServer) -> None:
            handler.start(200, Content_Length=6, Content_Type="text/html; charset=utf-8")
            handler.wfile.write(b"<html>")

        fetch.server.plan = [login]
        with pytest.raises(DownloadError, match="a web page, not a file"):
            fetch()

    def test_a_page_that_does_not_say_so_is_no_archive(self, fetch: Fetch) -> None:
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
    def test_a_chunked_body_tells_its_end(self, fetch: Fetch, is_whole: bool) -> None:
        def stream(handler: Handler, server: FileServer) -> None:
            handler.protocol_version = "HTTP/1.1"
            handler.start(200, Transfer_Encoding="chunked")
            handler.wfile.write(b"5\r\nhello\r\n" + (b"0\r\n\r\n" if is_whole else b""))
            handler.close_connection = True

        fetch.server.plan = [stream]
        assert fetch() == (b"hello" if is_whole else fetch.server.content)

    def test_nobody_listens(self, fetch: Fetch) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            fetch.server.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(DownloadError, match=r"no connection \(.*refused\), 6 times in a row"):
            fetch()

    def test_a_server_that_says_nothing_any_more(self, fetch: Fetch) -> None:
        def fall_silent(handler: Handler, server: FileServer) -> None:
            well(handler, server, stop_after=1000)
            handler.wfile.flush()
            handler.connection.settimeout(5)
            handler.connection.recv(1)  # returns when the client has given up

        fetch.server.plan = [fall_silent]
        assert fetch(timeout_seconds=0.2) == fetch.server.content
        assert "timed out" in fetch.notes[0]

    def test_redirects_are_followed_but_not_out_of_http(self, fetch: Fetch, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        fetch.server.plan = [status(302, Location="/elsewhere")]
        assert fetch() == fetch.server.content
        assert fetch.server.requests[1]["path"] == "/elsewhere"
        fetch.target.unlink()
        fetch.server.plan = [status(302, Location=f"file://{tmp_path}/secret")]
        with pytest.raises(DownloadError, match="302"):
            fetch()

    def test_a_full_disk_is_not_blamed_on_the_server(self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        with pytest.raises(ArtifactError, match="needs 256000 bytes more and 1000 are free"):
            fetch()
        assert fetch.leftovers() == set()

    def test_a_disk_that_refuses_is_not_blamed_either_and_the_part_stays(self, fetch: Fetch) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            with pytest.raises(ArtifactError, match=r"data\.bin\.part: File too large after 200000 bytes"):
                fetch()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert fetch() == fetch.server.content
        assert fetch.server.ranges() == [None, "bytes=200000-"]

    def test_something_else_has_the_name_of_the_part(self, fetch: Fetch) -> None:
        fetch.target.with_name("data.bin.part").mkdir(parents=True)
        with pytest.raises(DownloadError, match=r"cannot write .*data\.bin\.part: Is a directory"):
            fetch()


class TestExistingTarget:
    def test_a_right_one_is_not_fetched_again(self, fetch: Fetch) -> None:
        content = fetch()
        assert fetch(sha256=sha256(content), expected_bytes=len(content)) == content
        assert len(fetch.server.requests) == 1

    @pytest.mark.parametrize("facts", [{"sha256": "0" * 64}, {"expected_bytes": 5}])
    def test_another_file_is_not_overwritten(self, fetch: Fetch, facts: dict[str, object]) -> None:
        content = fetch()
        with pytest.raises(DownloadError, match=r"data\.bin is there and is another file"):
            fetch(**facts)
        assert fetch.target.read_bytes() == content

    def test_a_folder_is_in_the_way(self, fetch: Fetch) -> None:
        fetch.target.mkdir(parents=True)
        with pytest.raises(DownloadError, match="is not a file"):
            fetch()

    def test_two_downloads_of_one_file_do_not_mix(self, fetch: Fetch) -> None:
        with (
            storage.exclusive(fetch.target.parent, fetch.target.name),
            pytest.raises(ArtifactError, match=r"data\.bin is in use by another run"),
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
def test_what_is_no_address(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        download(url, tmp_path / "a")


def test_what_is_no_port_or_checksum(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is not an address"):
        download("http://127.0.0.1:port/a", tmp_path / "a")
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        download("http://127.0.0.1/a", tmp_path / "a", sha256="abc")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_server_does_the_file_is_right_or_absent(fetch: Fetch, seed: int) -> None:
    """Thirty requests, each answered at random by one of the ways above, with a file that may change in between."""
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
    pytest.fail("after the plan the server serves well, so one of ten calls must succeed")


@pytest.mark.parametrize("name", KNOWN_CORPORA)
def test_known_corpora_are_readable_and_checked(name: str) -> None:
    corpus = KNOWN_CORPORA[name]
    assert format_of(corpus.file_name) == Format("tar", "gzip")
    assert len(corpus.sha256) == 64
    assert all(url.startswith("https://") and url.endswith("/" + corpus.file_name) for url in corpus.urls.values())
