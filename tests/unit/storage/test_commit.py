"""An output takes its name in one step: it is whole or absent, old or new, and no foreign file is lost."""

import errno
import os
from pathlib import Path

import pytest

from dead_writers import leave_draft
from outputs import commit
from tinyllm import storage
from tinyllm.errors import ArtifactError


def test_replacing_leaves_the_new_one_alone(tmp_path: Path) -> None:
    commit(tmp_path / "thing", "old")
    commit(tmp_path / "thing", "new")
    assert (tmp_path / "thing" / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_replacing_without_an_atomic_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.disk, "exchange", lambda first, second: False)
    commit(tmp_path / "thing", "old")
    commit(tmp_path / "thing", "new")
    assert (tmp_path / "thing" / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_an_error_inside_leaves_the_old_one(tmp_path: Path) -> None:
    commit(tmp_path / "thing", "old")
    with pytest.raises(RuntimeError), storage.commit_directory(tmp_path / "thing", "test") as draft:
        (draft.path / "a.txt").write_text("half")
        raise RuntimeError
    assert (tmp_path / "thing" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_a_resumable_draft_survives_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), storage.commit_directory(tmp_path / "thing", "test", resumable=True) as draft:
        (draft.path / "part").write_text("kept")
        raise RuntimeError
    with storage.commit_directory(tmp_path / "thing", "test", resumable=True) as draft:
        assert (draft.path / "part").read_text() == "kept"
    assert (tmp_path / "thing" / "part").exists()


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    commit(tmp_path / "thing", "old")
    with (
        pytest.raises(ArtifactError, match=r"cannot write .*thing: No space left .* after 4 bytes; make room"),
        storage.commit_directory(tmp_path / "thing", "test") as draft,
    ):
        (draft.path / "a.txt").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert storage.verify(tmp_path / "thing").details == {"length": 3}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    storage.write_file(tmp_path / "f", "old")
    with pytest.raises(RuntimeError), storage.commit_file(tmp_path / "f") as file:
        file.write(b"half")
        raise RuntimeError
    assert (tmp_path / "f").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("exchange", [True, False])
def test_files_that_a_person_put_into_a_directory_survive_its_replacement(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(storage.disk, "exchange", lambda first, second: False)
    commit(tmp_path / "thing", "old")
    (tmp_path / "thing" / "notes.txt").write_text("mine")
    commit(tmp_path / "thing", "new")
    assert (tmp_path / "thing" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "thing" / "a.txt").read_text() == "new"


def test_a_foreign_file_with_the_name_of_a_new_one_is_not_replaced(tmp_path: Path) -> None:
    commit(tmp_path / "thing", "old")
    (tmp_path / "thing" / "b.txt").write_text("mine")
    with (
        pytest.raises(ArtifactError, match=r"b\.txt is in the way"),
        storage.commit_directory(tmp_path / "thing", "test") as draft,
    ):
        draft.write("b.txt", "ours")
    assert (tmp_path / "thing" / "b.txt").read_text() == "mine"
    assert storage.verify(tmp_path / "thing").details == {"length": 3}


def test_something_made_during_the_write_is_not_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match="will not replace"),
        storage.commit_directory(tmp_path / "thing", "test") as draft,
    ):
        draft.write("a.txt", "ours")
        (tmp_path / "thing").mkdir()
        (tmp_path / "thing" / "diary.txt").write_text("mine")
    assert (tmp_path / "thing" / "diary.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_outputs_that_are_links_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("elsewhere.txt")
    (tmp_path / "folder").symlink_to("elsewhere")
    for text in ("old", "new"):
        storage.write_file(tmp_path / "file", text)
        commit(tmp_path / "folder", text)
        assert (tmp_path / "file").is_symlink()
        assert (tmp_path / "folder").is_symlink()
        assert (tmp_path / "elsewhere.txt").read_text() == text
        assert (tmp_path / "elsewhere" / "a.txt").read_text() == text


def test_damaged_directories_set_aside_do_not_replace_each_other(tmp_path: Path) -> None:
    names = []
    for text in ("one", "two", "three"):
        commit(tmp_path / "thing", text)
        names.append(storage.set_aside(tmp_path / "thing").name)
    assert names == ["thing.damaged", "thing.damaged-2", "thing.damaged-3"]
    assert [(tmp_path / name / "a.txt").read_text() for name in names] == ["one", "two", "three"]


def test_a_directory_with_foreign_files_is_not_removed(tmp_path: Path) -> None:
    commit(tmp_path / "thing")
    (tmp_path / "thing" / "notes.txt").write_text("mine")
    assert not storage.remove_directory(tmp_path / "thing", "test")
    assert storage.verify(tmp_path / "thing").kind == "test"
    (tmp_path / "thing" / "notes.txt").unlink()
    assert storage.remove_directory(tmp_path / "thing", "test")
    assert list(tmp_path.iterdir()) == []


def test_the_next_write_removes_the_draft_of_a_dead_writer(tmp_path: Path) -> None:
    leave_draft(tmp_path / "thing", "test", {"a.txt": b"half"})
    leave_draft(tmp_path / "other", "test")
    commit(tmp_path / "thing")
    assert storage.drafts_of(tmp_path / "thing") == []
    assert len(storage.drafts_of(tmp_path / "other")) == 1


def test_long_names_can_be_written(tmp_path: Path) -> None:
    storage.write_file(tmp_path / ("n" * 255), "text")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]
