"""What `storage` promises: whole or absent, the old one or the new one, and any damage named."""

import errno
import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tinyllm import storage
from tinyllm.errors import ArtifactError, InputError


def commit(path: Path, text: str = "hello", kind: str = "test") -> None:
    with storage.commit_directory(path, kind) as draft:
        (draft.path / "a.txt").write_text(text)
        draft.details["length"] = len(text)


def test_a_committed_directory_verifies_and_says_what_it_holds(tmp_path: Path) -> None:
    commit(tmp_path / "thing")
    manifest = storage.verify(tmp_path / "thing", "test")
    assert manifest.details == {"length": 5}
    assert manifest.files["a.txt"].bytes == 5
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_replacing_leaves_the_new_one_alone(tmp_path: Path) -> None:
    commit(tmp_path / "thing", "old")
    commit(tmp_path / "thing", "new")
    assert (tmp_path / "thing" / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_replacing_without_an_atomic_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_exchange", lambda first, second: False)
    commit(tmp_path / "thing", "old")
    commit(tmp_path / "thing", "new")
    assert (tmp_path / "thing" / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_a_replacement_interrupted_between_its_renames_is_undone(tmp_path: Path) -> None:
    commit(tmp_path / "thing", "old")
    (tmp_path / "thing").rename(tmp_path / "thing.old")
    assert storage.verify(tmp_path / "thing").details == {"length": 3}


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


@pytest.mark.parametrize("size", [3, 6])
def test_a_file_of_another_size_is_named(tmp_path: Path, size: int) -> None:
    commit(tmp_path / "thing")
    (tmp_path / "thing" / "a.txt").write_text("x" * size)
    with pytest.raises(ArtifactError, match=rf"a\.txt is damaged: it has {size} bytes, the manifest says 5"):
        storage.read_manifest(tmp_path / "thing")


def test_a_flipped_bit_is_found_by_verify(tmp_path: Path) -> None:
    commit(tmp_path / "thing")
    (tmp_path / "thing" / "a.txt").write_text("hellp")
    storage.read_manifest(tmp_path / "thing")
    with pytest.raises(ArtifactError, match=r"a\.txt is damaged: its SHA-256"):
        storage.verify(tmp_path / "thing")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": 3}', '{"kind": "test", "files": {}}', "null", "\x00"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    commit(tmp_path / "thing")
    (tmp_path / "thing" / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        storage.read_manifest(tmp_path / "thing")


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    commit(tmp_path / "thing")
    path = tmp_path / "thing" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../secret"] = manifest["files"].pop("a.txt")
    del manifest["manifest_sha256"]  # As whoever writes such a one would.
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="its own directory only"):
        storage.read_manifest(tmp_path / "thing")


def test_missing_and_unfinished_directories_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        storage.read_manifest(tmp_path / "nothing")
    (tmp_path / "half").mkdir()
    with pytest.raises(ArtifactError, match="was not finished"):
        storage.read_manifest(tmp_path / "half")
    commit(tmp_path / "thing")
    with pytest.raises(ArtifactError, match="holds a test, not a model"):
        storage.read_manifest(tmp_path / "thing", "model")


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


def test_a_log_drops_a_cut_line_and_later_steps(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = storage.JsonLines(path, keep_through_step=2)
    log.append({"step": 3, "again": True})
    log.close()
    assert storage.read_json_lines(path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def _hold(directory: Path, held: Event) -> None:
    with storage.exclusive(directory):
        held.set()
        time.sleep(600)


def test_a_second_holder_is_refused_and_a_killed_one_frees_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, held))
    process.start()
    assert held.wait(60)
    with pytest.raises(ArtifactError, match="in use by another run"), storage.exclusive(tmp_path):
        pass
    process.kill()
    process.join()
    with storage.exclusive(tmp_path):
        pass


def test_an_unwritable_place_is_found_before_the_work(tmp_path: Path) -> None:
    storage.check_writable(tmp_path / "new" / "deep" / "file")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="is a file, not a directory"):
        storage.check_writable(tmp_path / "file" / "inside")
