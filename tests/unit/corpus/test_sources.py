"""Tests the list of files that names, folders and patterns lead to."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm import storage
from tinyllm.corpus.formats import Format, format_of, format_of_named
from tinyllm.corpus.sources import STANDARD_INPUT, list_sources
from tinyllm.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.txt", "a.JSON", "deep/er/c.jsonl.gz", "notes.doc", ".hidden.txt", ".git/d.txt", "e[1].txt"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return Path("corpus")


def test_a_folder_lists_its_supported_files_sorted_at_any_depth(folder: Path) -> None:
    expected = [folder / name for name in ("a.JSON", "b.txt", "deep/er/c.jsonl.gz", "e[1].txt")]
    assert list_sources([folder]) == expected


def test_patterns_that_the_shell_left_are_expanded(folder: Path) -> None:
    assert list_sources(["corpus/*.txt"]) == [folder / "b.txt", folder / "e[1].txt"]
    assert list_sources(["corpus/**/*.gz"]) == [folder / "deep/er/c.jsonl.gz"]
    assert list_sources(["corpus/d*"]) == [folder / "deep/er/c.jsonl.gz"]


def test_an_existing_name_is_not_a_pattern(folder: Path) -> None:
    assert list_sources([folder / "e[1].txt"]) == [folder / "e[1].txt"]


def test_a_file_named_by_itself_or_by_a_pattern_is_listed_with_any_ending(folder: Path) -> None:
    assert list_sources([folder / "notes.doc"]) == [folder / "notes.doc"]
    assert list_sources(["corpus/*.doc"]) == [folder / "notes.doc"]
    assert folder / "notes.doc" in list_sources(["corpus/*"])


def test_skipped_files_of_a_folder_are_noted_in_one_line(folder: Path) -> None:
    notes: list[str] = []
    list_sources([folder], notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("skipped 1 file (corpus/notes.doc): of a folder only files that end in .txt")
    for name in ("a.png", "b.exe", "deep/c.PDF"):
        (folder / name).touch()
    (folder / "link").symlink_to((folder / "deep").absolute())
    notes.clear()
    list_sources([folder, "corpus/deep"], notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("skipped 5 files (corpus/a.png, corpus/b.exe, corpus/deep/c.PDF, …): of a folder only")
    assert notes[0].endswith("links to folders are not followed")


def test_a_file_that_is_also_named_is_not_skipped(folder: Path) -> None:
    notes: list[str] = []
    assert folder / "notes.doc" in list_sources([folder, folder / "notes.doc"], notes.append)
    assert notes == []


def test_order_and_repetition_of_arguments_do_not_matter(folder: Path) -> None:
    once = list_sources([folder])
    assert len(list_sources([folder, folder.absolute()])) == len(once)
    assert list_sources([folder / "b.txt", "corpus/*.txt", folder, "./corpus/a.JSON"]) == once


def test_a_link_to_a_file_already_named_adds_nothing(folder: Path) -> None:
    (folder / "z.txt").symlink_to((folder / "b.txt").absolute())
    assert folder / "z.txt" not in list_sources([folder])
    assert list_sources([folder / "z.txt"]) == [folder / "z.txt"]


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "deep" / "circle").symlink_to(folder.absolute())
    assert len(list_sources([folder])) == 4


def test_standard_input_is_a_source(folder: Path) -> None:
    assert list_sources(["-", folder / "b.txt"]) == [STANDARD_INPUT, folder / "b.txt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.txt", r"missing\.txt does not exist"),
        ("corpus/*.csv", r"the pattern corpus/\*\.csv matches no file$"),
        ("empty", r"empty has no file that ends in \.txt, .* or \.parquet$"),
        ("pictures", r"pictures has no file that ends in .*; it has 1 file \(pictures/a\.png\); name a file itself"),
        ("picture*", r"the pattern picture\* matches no file; it has 1 file \(pictures/a\.png\)"),
        ("a" * 300 + ".txt", "(does not exist|cannot read)"),
        ("a\0b.txt", r"a\?b\.txt does not exist"),
        ("", "an input has no name; name a file"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_names_without_files_are_refused(name: str, message: str) -> None:
    Path("empty").mkdir()
    Path("pictures").mkdir()
    Path("pictures/a.png").touch()
    with pytest.raises(InputError, match=message):
        list_sources([name])


def test_an_empty_list_of_inputs_is_refused() -> None:
    with pytest.raises(InputError, match="no input named"):
        list_sources([])


def test_a_folder_that_cannot_be_listed_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="cannot read corpus: Permission denied"):
        list_sources([folder])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", Format("text")),
        ("a.tar.json", Format("json")),
        ("A.JSONL.GZ", Format("jsonl", "gzip")),
        ("a.tgz", Format("tar", "gzip")),
        ("a.tar.zst", Format("tar", "zstd")),
        ("a.parquet", Format("parquet")),
        ("a.parquet.gz", None),
        ("README.md", Format("text")),
        ("a.rst.bz2", Format("text", "bzip2")),
        ("a.csv.xz", Format("csv", "xz")),
        ("a.TSV", Format("tsv")),
        ("a.tbz2", Format("tar", "bzip2")),
        ("a.tar.xz", Format("tar", "xz")),
        ("a.zip", Format("zip")),
        ("a.zip.gz", None),
        ("a.gz", None),
        ("txt", None),
    ],
)
def test_the_ending_gives_the_format(name: str, expected: Format | None) -> None:
    assert format_of(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.json", Format("json")),
        ("server.log", Format("text", known=False)),
        ("server.log.GZ", Format("text", "gzip", known=False)),
        ("README", Format("text", known=False)),
    ],
)
def test_a_named_file_is_text_unless_its_ending_says_otherwise(name: str, expected: Format) -> None:
    assert format_of_named(name) == expected


def write_plan(output: Path) -> None:
    output.mkdir(parents=True)
    (output / "plan.json").write_text('{"kind": "tinyllm fit"}', encoding="utf-8")


def write_run(output: Path) -> None:
    output.mkdir(parents=True)
    (output / "config.toml").touch()
    with storage.exclusive(output):
        pass


def write_tokenizer(output: Path) -> None:
    output.parent.mkdir()
    with storage.commit_directory(output, "tokenizer") as draft:
        draft.write("tokenizer.json", "{}")


TEXTS = {"plan.json": '[{"text": "a plan"}]', "manifest.json": '[{"text": "a manifest"}]', "config.toml": ""}


@pytest.mark.parametrize("write", [write_plan, write_run, write_tokenizer])
def test_outputs_of_tinyllm_are_no_texts(folder: Path, write: Callable[[Path], None]) -> None:
    """A run inside the folder of its texts, as after `cd texts; tinyllm fit .`"""
    before = list_sources([folder])
    output = folder / "runs" / "mine"
    write(output)
    (output / "shards").mkdir()
    (output / "shards" / "notes.txt").touch()
    notes: list[str] = []
    assert list_sources([folder], notes.append) == before
    assert f"left out 1 folder ({output}): written by tinyllm" in notes
    with pytest.raises(InputError, match="was written by tinyllm, and is left out"):
        list_sources([output])


@pytest.mark.parametrize("name", TEXTS)
def test_texts_with_the_names_of_outputs_are_listed(folder: Path, name: str) -> None:
    (folder / "more").mkdir()
    (folder / "more" / name).write_text(TEXTS[name], encoding="utf-8")
    (folder / "more" / "notes.txt").touch()
    assert folder / "more" / "notes.txt" in list_sources([folder])
