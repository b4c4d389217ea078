"""`tinyllm data download` and `tinyllm data storybook`."""

import hashlib
import json
from pathlib import Path

import pytest

from loopback import FileServer, cut, status
from tinyllm.cli.app import main
from tinyllm.corpus import catalogue
from tinyllm.corpus.documents import read_documents


def run(*arguments: str | Path) -> int:
    """Runs the command; returns its exit code."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.sleep", lambda _: None)


class TestDownload:
    def test_an_address_is_downloaded_into_data(
        self, file_server: FileServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file_server.plan = [cut(1000)]
        digest = hashlib.sha256(file_server.content).hexdigest()
        assert run("data", "download", "--url", f"{file_server.address}/my%20corpus.txt?x=1", "--sha256", digest) == 0
        assert Path("data/my corpus.txt").read_bytes() == file_server.content
        output = capsys.readouterr()
        assert output.out == "data/my corpus.txt\n"
        assert "from byte 1000" in output.err

    def test_a_named_corpus_comes_from_its_source_and_is_checked(
        self, file_server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        urls = {source: f"{file_server.address}/{source}/all.txt" for source in ("modelscope", "huggingface")}
        digest = hashlib.sha256(file_server.content).hexdigest()
        corpus = catalogue.KnownCorpus("all.txt", len(file_server.content), digest, urls)
        monkeypatch.setitem(catalogue.KNOWN_CORPORA, "tinystories", corpus)
        assert run("data", "download", "tinystories", "--from", "huggingface", "-o", "here.txt") == 0
        assert file_server.requests[0]["path"] == "/huggingface/all.txt"
        assert run("data", "download", "-o", "here.txt") == 0
        assert "here.txt exists already; checking it" in capsys.readouterr().err
        file_server.content = b"x" * len(file_server.content)
        assert run("data", "download") == 1
        assert "SHA-256" in capsys.readouterr().err
        assert file_server.requests[1]["path"] == "/modelscope/all.txt"
        assert not Path("data/all.txt").exists()

    def test_missing_corpora_and_addresses(self, file_server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
        file_server.plan = [status(404)]
        assert run("data", "download", "--url", f"{file_server.address}/a.txt") == 1
        assert capsys.readouterr().err == f"tinyllm: {file_server.address}/a.txt: the server has no such file (404)\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["shakespeare"], "'shakespeare' is not a known corpus (tinystories)"),
            (["tinystories", "--url", "http://127.0.0.1/a"], "not both"),
            (["--url", "http://127.0.0.1/"], "does not end in a file name"),
            (["--url", "http://127.0.0.1/.."], "does not end in a file name"),
            (["--url", "ftp://127.0.0.1/a"], "begins with http"),
            (["--from", "elsewhere"], "--from"),
        ],
    )
    def test_wrong_calls(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("data", "download", *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


class TestStorybook:
    def test_both_formats_hold_the_same_stories(self, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("a.txt", "a.jsonl"):
            assert run("data", "storybook", "--stories", "50", "--seed", "3", "-o", name) == 0
        as_text, as_json = ([document.text for document in read_documents([name])] for name in ("a.txt", "a.jsonl"))
        assert as_text == as_json
        assert len(set(as_text)) == 50
        assert json.loads(Path("a.jsonl").read_text().splitlines()[0]) == {"story": as_text[0]}
        assert capsys.readouterr().out == "a.txt\na.jsonl\n"

    def test_standard_output_is_the_text_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("data", "storybook", "--stories", "5", "-o", "a.txt") == 0
        capsys.readouterr()
        assert run("data", "storybook", "--stories", "5", "-o", "-") == 0
        assert capsys.readouterr().out == Path("a.txt").read_text()

    def test_the_seed_decides(self) -> None:
        for name, seed in (("a.txt", "1"), ("b.txt", "1"), ("c.txt", "2")):
            assert run("data", "storybook", "--stories", "5", "--seed", seed, "-o", name) == 0
        assert Path("a.txt").read_bytes() == Path("b.txt").read_bytes()
        assert Path("a.txt").read_bytes() != Path("c.txt").read_bytes()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(["-o", "a.csv"], "a.csv ends in neither .txt nor .jsonl"), (["--stories", "0"], "--stories 0: ")],
    )
    def test_wrong_calls(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("data", "storybook", *arguments) == 2
        assert message in capsys.readouterr().err
        assert list(Path().iterdir()) == []
