"""A committed directory lists its files; any damage is found and named."""

import json
from pathlib import Path

import pytest

from outputs import commit
from tinyllm import storage
from tinyllm.errors import ArtifactError, InputError


def test_a_committed_directory_verifies_and_lists_its_files(tmp_path: Path) -> None:
    commit(tmp_path / "thing")
    manifest = storage.verify(tmp_path / "thing", "test")
    assert manifest.details == {"length": 5}
    assert manifest.files["a.txt"].bytes == 5
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


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
    del manifest["manifest_sha256"]  # a manifest written by hand has none
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
    with pytest.raises(ArtifactError, match="is of the kind test, not model"):
        storage.read_manifest(tmp_path / "thing", "model")
