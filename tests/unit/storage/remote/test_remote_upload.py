"""Uploads that are killed between any two changes: the address has the old or the new directory, never a mixture."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from object_store import ObjectStore, needs_object_store
from tinyllm import storage
from tinyllm.errors import ArtifactError, UploadError, UsageError
from tinyllm.storage.remote import upload
from tinyllm.storage.remote.claims import CLAIM_NAME, Claim, LostClaimError
from tinyllm.storage.remote.fetch import fetch_directory, find_committed
from tinyllm.storage.remote.listing import objects_below
from tinyllm.storage.remote.outputs import directory_output, file_output
from tinyllm.storage.remote.upload import MARK_NAME, remove_directory, upload_directory, upload_file

CHANGES = ("put_file", "pipe_file", "cp_file", "rm_file")


class Killed(BaseException):
    """The process ends here."""


class MemoryDriver:
    """fsspec's file system in memory under s3:// addresses; it can be killed before or after each change."""

    def __init__(self) -> None:
        self.files: Any = fsspec.filesystem("memory")
        self.num_changes = 0
        self.killed_at: tuple[int, bool] | None = None
        """The number of the change, and whether it is done before the end."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.files, name)

        def call(*places: Any, **options: Any) -> Any:
            moved = [place.replace("s3://", "memory://") if isinstance(place, str) else place for place in places]
            options.pop("chunksize", None)
            options.pop("cache_type", None)
            if name not in CHANGES:
                found = method(*moved, **options)
                return {key.lstrip("/"): value for key, value in found.items()} if name in ("find", "glob") else found
            self.num_changes += 1
            number, is_done = self.killed_at or (0, False)
            if number == self.num_changes and not is_done:
                raise Killed
            method(*moved, **options)
            if number == self.num_changes:
                raise Killed
            return None

        return call


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> MemoryDriver:
    driver = MemoryDriver()
    driver.files.store.clear()
    for module in ("upload", "fetch", "listing", "streams", "claims"):
        monkeypatch.setattr(f"tinyllm.storage.remote.{module}.file_system", lambda place: driver)
    return driver


def commit(path: Path, **files: str) -> Path:
    with storage.commit_directory(path, "model") as draft:
        for name, content in files.items():
            draft.write(name, content)
    return path


def content_at(place: str, target: Path) -> dict[str, str] | None:
    """The files of the directory that a reader finds at an address, every checksum verified."""
    found = find_committed(place)
    if found is None:
        return None
    source, text, manifest = found
    fetch_directory(source, manifest, text, target)
    storage.verify(target)
    return {name: (target / name).read_text() for name in manifest.files}


def every_kill(memory: MemoryDriver, act: Callable[[], None], look: Callable[[int], None], num_changes: int) -> None:
    """Calls `look` after `act` was killed before and after each of its changes."""
    for number in range(1, num_changes + 1):
        for is_done in (False, True):
            memory.num_changes, memory.killed_at = 0, (number, is_done)
            with pytest.raises(Killed):
                act()
            memory.killed_at = None
            look(2 * number + is_done)


OLD, NEW = {"a": "old", "b": "old only"}, {"a": "new", "c": "new only"}


def test_a_killed_replacement_leaves_the_old_or_the_new_directory(memory: MemoryDriver, tmp_path: Path) -> None:
    place, old, new = "s3://bucket/model", commit(tmp_path / "old", **OLD), commit(tmp_path / "new", **NEW)
    upload_directory(old, place, "model")
    upload_directory(old, place, "model")
    memory.num_changes = 0
    upload_directory(new, place, "model")
    total = memory.num_changes
    assert total > 10
    assert content_at(place, tmp_path / "whole") == NEW
    seen = []

    def begin() -> None:
        memory.files.store.clear()
        kill, memory.killed_at = memory.killed_at, None
        upload_directory(old, place, "model")
        memory.num_changes, memory.killed_at = 0, kill
        upload_directory(new, place, "model")

    def look(number: int) -> None:
        seen.append(content_at(place, tmp_path / f"seen-{number}"))
        assert seen[-1] in (OLD, NEW)
        upload_directory(new, place, "model")
        assert content_at(place, tmp_path / f"again-{number}") == NEW
        names = sorted(found.place.removeprefix("s3://bucket/") for found in objects_below("s3://bucket"))
        assert names == ["model/a", "model/c", "model/manifest.json"]

    every_kill(memory, begin, look, total)
    assert seen[0] == OLD
    assert seen[-1] == NEW


def test_a_killed_first_upload_or_removal_leaves_all_or_nothing(memory: MemoryDriver, tmp_path: Path) -> None:
    place, new = "s3://bucket/model", commit(tmp_path / "new", **NEW)
    upload_directory(new, place, "model")
    total, memory.num_changes = memory.num_changes, 0
    remove_directory(place, "model")
    total_removal = memory.num_changes
    assert not objects_below("s3://bucket")

    def look(number: int) -> None:
        assert content_at(place, tmp_path / f"seen-{number}") in (None, NEW)
        upload_directory(new, place, "model")
        assert content_at(place, tmp_path / f"again-{number}") == NEW
        remove_directory(place, "model")
        assert not objects_below("s3://bucket")

    every_kill(memory, lambda: upload_directory(new, place, "model"), look, total)

    def remove() -> None:
        kill, memory.killed_at = memory.killed_at, None
        upload_directory(new, place, "model")
        memory.num_changes, memory.killed_at = 0, kill
        remove_directory(place, "model")

    every_kill(memory, remove, lambda number: look(number + 1000), total_removal)


def test_foreign_objects_are_neither_replaced_nor_removed(memory: MemoryDriver, tmp_path: Path) -> None:
    new, place = commit(tmp_path / "new", **NEW), "s3://bucket/model"
    memory.files.pipe_file("memory://bucket/model/notes.txt", b"mine")
    with pytest.raises(ArtifactError, match="will not write to s3://bucket/model: notes.txt is there"):
        upload_directory(new, place, "model")
    memory.files.rm_file("memory://bucket/model/notes.txt")
    upload_directory(new, place, "model")
    memory.files.pipe_file("memory://bucket/model/notes.txt", b"mine")
    upload_directory(commit(tmp_path / "old", **OLD), place, "model")
    with pytest.raises(ArtifactError, match="is of the kind model, not shards; it is not removed"):
        remove_directory(place, "shards")
    with storage.commit_directory(tmp_path / "shards", "shards") as draft:
        draft.write("a", "shard")
    with pytest.raises(ArtifactError, match="will not replace s3://bucket/model: it is of the kind model, not shards"):
        upload_directory(tmp_path / "shards", place, "shards")
    remove_directory(place, "model")
    assert [found.place for found in objects_below("s3://bucket")] == [f"{place}/notes.txt"]
    memory.files.pipe_file(f"memory://bucket/model/{MARK_NAME}", b'{"tinyllm": "upload", "files": ["../other"]}')
    with pytest.raises(ArtifactError, match=f"{MARK_NAME} is not a mark of tinyllm"):
        remove_directory(place, "model")


def test_a_local_directory_that_changes_is_not_uploaded(memory: MemoryDriver, tmp_path: Path) -> None:
    new = commit(tmp_path / "new", **NEW)
    (new / "c").write_text("changed!")
    with pytest.raises(ArtifactError, match="is damaged, or changed while it was uploaded"):
        upload_directory(new, "s3://bucket/model", "model")
    assert find_committed("s3://bucket/model") is None


def test_outputs_go_to_places_that_take_them(memory: MemoryDriver, tmp_path: Path) -> None:
    for place in ("https://host/model", "hf://owner/model"):
        refused = pytest.raises(UsageError, match=r"is an address to read; outputs go to s3:// or gs://")
        with refused, directory_output(Path(place), "model", overwrite=False):
            raise AssertionError
    with pytest.raises(UsageError, match="s3://bucket/x is an address, and this output needs a path of this machine"):
        storage.write_file(Path("s3://bucket/x"), "text")
    with directory_output(tmp_path / "here", "model", overwrite=True) as (path, overwrite):
        assert (path, overwrite) == (tmp_path / "here", True)


@needs_object_store
def test_a_wrong_upload_is_done_again(object_store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(300_000))
    object_store.network.upload_flips = 1
    notes: list[str] = []
    place = object_store.address("large.bin")
    upload_file(path, place, note=notes.append)
    assert object_store.read("large.bin") == path.read_bytes()
    assert notes == [f"{place} did not arrive as it was sent; uploading it again"]
    object_store.network.upload_flips = 10**6
    with pytest.raises(UploadError, match="did not arrive as it was sent 3 times"):
        upload_file(path, place)


@needs_object_store
def test_large_files_go_in_parts(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's ETag of the parts is known before, so that nothing is read back."""
    monkeypatch.setattr(upload, "PART_BYTES", 5 * 2**20)
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(11 * 2**20))
    upload_file(path, object_store.address("large.bin"))
    assert object_store.read("large.bin") == path.read_bytes()
    assert object_store.network.received_bytes < 100_000


@needs_object_store
def test_one_run_has_an_address(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.storage.remote.claims.SETTLE_SECONDS", 0.0)
    place = object_store.address("run")
    first = Claim.take(place, "first")
    assert first.previous_owner is None
    with pytest.raises(ArtifactError, match=f"{place} is in use by a run on .*, which was there . s ago; wait"):
        Claim.take(place, "second")
    assert Claim.take(place, "first").previous_owner == "first"
    monkeypatch.setattr("tinyllm.storage.remote.claims.STALE_SECONDS", 0.0)
    second = Claim.take(place, "second")
    assert second.previous_owner == "first"
    first.refreshed -= 1000
    with pytest.raises(LostClaimError, match="is not this run's any more: a run on .* has taken it over"):
        first.refresh_if_due()
    second.release()
    monkeypatch.setattr("tinyllm.storage.remote.claims.STALE_SECONDS", 300.0)
    Claim.take(place, "third").release()
    object_store.write(b"text", "elsewhere", "notes.txt")
    with pytest.raises(UsageError, match=r"elsewhere/notes.txt exists, and no run of tinyllm wrote it"):
        Claim.take(object_store.address("elsewhere"), "first")
    object_store.write(b"{}", "run", CLAIM_NAME)
    with pytest.raises(UsageError, match=f"{CLAIM_NAME} is not a mark of tinyllm"):
        Claim.take(place, "first")


@needs_object_store
def test_a_file_at_an_address_is_replaced_only_if_asked(object_store: ObjectStore) -> None:
    path = Path(object_store.address("out", "model.bin"))
    with file_output(path, overwrite=False) as local:
        storage.write_file(local, "one")
        storage.write_file(local.with_name("tokenizer.bin"), "tokens")
    assert object_store.names("out") == ["model.bin", "tokenizer.bin"]
    refused = pytest.raises(ArtifactError, match=r"out/model.bin exists already; choose another name, or replace it")
    with refused, file_output(path, overwrite=False):
        raise AssertionError
    with file_output(path, overwrite=True) as local:
        assert local.read_text() == "one"
        storage.write_file(local, "two")
    assert object_store.read("out", "model.bin") == b"two"
    refused = pytest.raises(ArtifactError, match=r"out/tokenizer.bin exists, and is another file")
    with refused, file_output(path, overwrite=True) as local:
        storage.write_file(local, "three")
        storage.write_file(local.with_name("tokenizer.bin"), "other")
    assert object_store.read("out", "model.bin") == b"two"
