"""Drafts: private, marked, locked by their writer, and removed by nobody but a writer of the same target."""

import json
import shutil
from pathlib import Path

import pytest

from dead_writers import leave_draft
from tinyllm import storage
from tinyllm.errors import ArtifactError
from tinyllm.storage.drafts import MARK_NAME, draft_name


def test_a_draft_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with storage.open_draft(tmp_path / "thing", "test") as draft:
        assert draft.folder.stat().st_mode & 0o777 == 0o700
        assert storage.drafts_of(tmp_path / "thing")[0].is_live
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_target_are_kept_apart(tmp_path: Path) -> None:
    with (
        storage.open_draft(tmp_path / "thing", "test"),
        pytest.raises(ArtifactError, match="being written by another process"),
    ):
        storage.write_file(tmp_path / "thing", "text")
    with storage.open_draft(tmp_path / "thing", "test"):
        storage.write_file(tmp_path / "other", "text")


def test_a_held_target_is_written_from_inside_alone(tmp_path: Path) -> None:
    with storage.hold(tmp_path / "thing", "test"):
        storage.write_file(tmp_path / "thing", "text")
        assert [draft.kind for draft in storage.drafts_of(tmp_path / "thing")] == ["test"]
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_a_resumable_draft_is_taken_over_by_its_own_kind(tmp_path: Path) -> None:
    leave_draft(tmp_path / "thing", "shards", {"part": b"kept"})
    with storage.open_draft(tmp_path / "thing", "shards", resumable=True) as draft:
        assert (draft.new / "part").read_bytes() == b"kept"
        draft.keep = True
    with storage.open_draft(tmp_path / "thing", "model", resumable=True) as draft:
        assert not draft.new.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_copy_under_another_name_is_somebody_elses(tmp_path: Path) -> None:
    folder = leave_draft(tmp_path / "thing", "test", {"part": b"half"})
    copy = tmp_path / draft_name("0123456789abcdef")
    shutil.copytree(folder, copy)
    storage.write_file(tmp_path / "thing", "text")
    assert not folder.exists()
    assert (copy / "new" / "part").read_bytes() == b"half"


@pytest.mark.parametrize(
    "mark",
    [
        "",
        "{",
        "[]",
        "null",
        '{"draft": 3}',
        '{"draft": "NAME", "target": "../../x", "kind": "k"}',
        '{"draft": "NAME", "target": ["x"], "kind": "k"}',
    ],
)
def test_a_folder_without_a_valid_mark_is_never_touched(tmp_path: Path, mark: str) -> None:
    folder = tmp_path / draft_name("0123456789abcdef")
    folder.mkdir()
    (folder / MARK_NAME).write_text(mark.replace("NAME", folder.name))
    (folder / "diary.txt").write_text("mine")
    storage.write_file(tmp_path / "thing", "text")
    assert storage.remove_dead_drafts(tmp_path) == []
    assert (folder / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("with_mark", [False, True])
def test_a_draft_without_a_whole_mark_is_removed(tmp_path: Path, with_mark: bool) -> None:
    folder = tmp_path / draft_name("0123456789abcdef")
    folder.mkdir()
    if with_mark:
        (folder / MARK_NAME).touch()
    storage.write_file(tmp_path / "thing", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_an_empty_folder_with_nearly_a_drafts_name_stays(tmp_path: Path) -> None:
    folder = tmp_path / ".tinyllm-0123456789abcdef-00000000.draft"
    folder.mkdir()
    storage.write_file(tmp_path / "thing", "text")
    assert folder.is_dir()


def test_a_previous_content_without_a_name_is_brought_back(tmp_path: Path) -> None:
    with storage.commit_directory(tmp_path / "thing", "test") as content:
        content.write("a.txt", "old")
    folder = leave_draft(tmp_path / "thing", "test", {"a.txt": b"new"})
    (tmp_path / "thing").rename(folder / "old")
    storage.remove_dead_drafts(tmp_path)
    assert (tmp_path / "thing" / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_foreign_files_in_a_replaced_directory_return_after_a_crash(tmp_path: Path) -> None:
    """A crash right after the exchange: the draft holds the old directory, with a person's file in it."""
    for name in ("old", "thing"):
        with storage.commit_directory(tmp_path / name, "test") as content:
            content.write("a.txt", name)
    (tmp_path / "old" / "notes.txt").write_text("mine")
    folder = leave_draft(tmp_path / "thing", "test")
    (folder / "new").rmdir()
    (tmp_path / "old").rename(folder / "new")
    (tmp_path / "thing" / "notes.txt").write_text("mine, later")
    storage.remove_dead_drafts(tmp_path)
    assert (tmp_path / "thing" / "notes.txt").read_text() == "mine, later"
    assert (tmp_path / "thing" / "notes.txt-2").read_text() == "mine"


def test_the_mark_names_draft_target_and_kind(tmp_path: Path) -> None:
    with storage.open_draft(tmp_path / "thing", "test") as draft:
        mark = json.loads((draft.folder / MARK_NAME).read_text())
    assert mark == {"draft": draft.folder.name, "target": "thing", "kind": "test"}


def test_a_resumable_hold_is_taken_over_if_it_was_kept(tmp_path: Path) -> None:
    target = tmp_path / "thing"
    with storage.hold(target, "test", resumable=True) as draft:
        (draft.folder / "run").mkdir()
        (draft.folder / "run" / "work").touch()
        draft.keep = True
    with storage.hold(target, "test", resumable=True) as again:
        assert again.folder == draft.folder
        assert (again.folder / "run" / "work").exists()
        storage.empty_draft(again)
        assert [path.name for path in again.folder.iterdir()] == ["tinyllm-draft.json"]
    assert list(tmp_path.iterdir()) == [], "a draft that is not kept is removed"
