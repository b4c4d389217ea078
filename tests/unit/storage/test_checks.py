"""An output that would destroy something, or cannot be written, is refused before any work."""

from pathlib import Path

import pytest

from tinyllm import storage
from tinyllm.errors import ArtifactError


def test_an_unwritable_place_is_found_before_the_work(tmp_path: Path) -> None:
    storage.check_writable(tmp_path / "new" / "deep" / "file")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="is a file, not a directory"):
        storage.check_writable(tmp_path / "file" / "inside")


@pytest.mark.parametrize(
    ("content", "overwrite", "message"),
    [
        (b"text", False, "exists already; choose another name, or replace it with `overwrite=True`"),
        (b"\0\1", True, "will not replace .*: it is not a text file"),
        ("ä".encode("latin-1"), True, "it is not a text file"),
    ],
)
def test_an_existing_file_is_refused(tmp_path: Path, content: bytes, overwrite: bool, message: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        storage.check_new_file(tmp_path / "f", "a text file", storage.is_text, overwrite=overwrite)


@pytest.mark.parametrize("text", ["", "plain", "ä" * 40_000, "x" * (2**16 - 1) + "ä"])
def test_a_file_of_its_own_kind_is_replaceable(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text, encoding="utf-8")
    storage.check_new_file(tmp_path / "f", "a text file", storage.is_text, overwrite=True)


def test_a_folder_is_never_a_file_to_replace(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(ArtifactError, match="is there and is not a file"):
        storage.check_new_file(tmp_path / "f", "a text file", storage.is_text, overwrite=True)


def test_links_are_followed_to_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    assert storage.follow_link(tmp_path / "link") == tmp_path / "real"
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ArtifactError, match="leads nowhere"):
        storage.follow_link(tmp_path / "a")
