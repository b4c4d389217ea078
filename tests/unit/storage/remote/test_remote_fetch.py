"""Fetching from a real S3 server that is cut, slow and wrong: what arrives is whole, or nothing is kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from object_store import ObjectStore, needs_object_store
from tinyllm import storage
from tinyllm.errors import ArtifactError, DownloadError, InputError, UsageError
from tinyllm.machine.user_cache import LIMIT_NAME
from tinyllm.storage.remote import cache, drivers
from tinyllm.storage.remote.fetch import fetch
from tinyllm.storage.remote.streams import open_remote

pytestmark = needs_object_store
CONTENT = os.urandom(600_000)


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """A committed directory of two files."""
    with storage.commit_directory(tmp_path / "thing", "shards") as draft:
        draft.write("large.bin", CONTENT)
        draft.write("small.txt", "small")
    return tmp_path / "thing"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several requests a file."""
    monkeypatch.setattr("tinyllm.storage.remote.streams.BLOCK_BYTES", 2**17)


def entries() -> list[Path]:
    return [path for path in cache.inputs_folder().glob("*") if path.is_dir()]


def cut(store: ObjectStore) -> None:
    store.network.cut_after_bytes = 250_000


def slow(store: ObjectStore) -> None:
    store.network.delay_seconds = 0.01


def wrong(store: ObjectStore) -> None:
    store.network.flips = 2


@pytest.mark.parametrize("break_network", [cut, slow, wrong])
def test_a_committed_directory_arrives_whole(
    object_store: ObjectStore, committed: Path, break_network: Callable[[ObjectStore], None]
) -> None:
    place = object_store.put(committed, "things", "one")
    break_network(object_store)
    found = fetch(place)
    storage.verify(found, "shards")
    assert found.name == "one"
    assert (found / "large.bin").read_bytes() == CONTENT
    assert not object_store.network.flips


def test_a_directory_that_stays_wrong_leaves_nothing(object_store: ObjectStore, committed: Path) -> None:
    place = object_store.put(committed, "one")
    object_store.network.flips, object_store.network.flip_after_bytes = 10**6, 300_000
    notes: list[str] = []
    with pytest.raises(DownloadError, match=f"^{place}/large.bin "):
        fetch(place, note=notes.append)
    assert notes[0] == f"fetching {place}: 2 files, 600,005 bytes"
    assert notes[1].startswith(f"{place}/large.bin: ")
    assert not entries()
    object_store.network.flips = 0
    storage.verify(fetch(place), "shards")


def test_a_damaged_object_is_refused(object_store: ObjectStore, committed: Path) -> None:
    place = object_store.put(committed, "one")
    object_store.write(CONTENT[:-1] + b"?", "one", "large.bin")
    notes: list[str] = []
    with pytest.raises(DownloadError, match=r"large.bin is damaged, or damaged on its way 3 times: its SHA-256 is"):
        fetch(place, note=notes.append)
    assert notes[1:] == [f"{place}/large.bin: its SHA-256 is wrong; fetching it again"] * 2
    object_store.write(CONTENT[:-1], "one", "large.bin")
    with pytest.raises(DownloadError, match="599999 bytes came instead of 600000"):
        fetch(place)
    object_store.write(b"{", "one", "manifest.json")
    with pytest.raises(ArtifactError, match="one/manifest.json is damaged at the text"):
        fetch(place)
    assert not entries()


def test_a_server_that_is_gone_is_one_error(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    place = object_store.write(b"text", "a.txt")
    object_store.network.is_down = True
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setattr(drivers, "TRIES", 2)
    with pytest.raises(DownloadError, match=r"a\.txt/manifest\.json failed 2 times: .*; try again later"):
        fetch(place)


def test_a_missing_object_names_its_address(object_store: ObjectStore) -> None:
    with pytest.raises(InputError, match=f"^{object_store.address('none')} does not exist"):
        fetch(object_store.address("none"))
    with pytest.raises(InputError, match=f"^{object_store.address('none.txt')} does not exist"):
        open_remote(object_store.address("none.txt"))


def test_errors_show_no_secret(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyllm.addresses import address, shown

    signed = "https://host/model.gguf?X-Amz-Signature=abcdef"
    assert shown(address(signed) or "") == "https://host/model.gguf"
    assert "abcdef" not in drivers.reason_of(OSError(f"cannot reach url='{signed}'"))
    with pytest.raises(UsageError, match="user or a password is not opened") as error:
        address("https://me:secret@host/x")
    assert "secret" not in str(error.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    options = {**drivers.OPTIONS["s3"], "skip_instance_cache": True}
    monkeypatch.setitem(drivers.OPTIONS, "s3", options)
    with pytest.raises(InputError, match="may not be used: .* credentials come from AWS_ACCESS_KEY_ID"):
        fetch(object_store.address("x"))


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr("fsspec.filesystem", refuse)
    with pytest.raises(UsageError, match=r"gs:// needs a driver .*pip install 'tinyllm\[gs\]'"):
        fetch("gs://bucket/model")


def test_the_cache_keeps_its_limit(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used entry goes, and none in use."""
    places = [object_store.write(os.urandom(400), f"{name}.model") for name in "abcd"]
    monkeypatch.setenv(LIMIT_NAME, "1e-6")
    first, second = fetch(places[0]), fetch(places[1])
    with pytest.raises(ArtifactError, match=r"c\.model has 400 bytes, and of the 1000 bytes .* 800 are in use; set"):
        fetch(places[2])
    # As after the end of the process that used the first ones.
    monkeypatch.setattr(cache, "_used", set())
    monkeypatch.setattr(cache, "is_locked", lambda path: path.parent.name == second.parent.name)
    for path in cache.inputs_folder().glob("*.use-*"):
        if path.name.startswith(first.parent.name):
            path.unlink()
    os.utime(first.parent, ns=(0, 0))
    third = fetch(places[2])
    assert not first.exists()
    assert second.exists()
    assert third.exists()
    monkeypatch.setenv(LIMIT_NAME, "none")
    with pytest.raises(UsageError, match=f"{LIMIT_NAME} is none; it should be a number of gigabytes"):
        fetch(places[3])


def test_a_changed_object_is_fetched_again(object_store: ObjectStore) -> None:
    place = object_store.write(b"one", "a.txt")
    assert fetch(place).read_bytes() == b"one"
    object_store.write(b"two", "a.txt")
    assert fetch(place).read_bytes() == b"two"
    assert len(entries()) == 2


def test_a_stream_goes_on_where_it_was_cut(object_store: ObjectStore) -> None:
    place = object_store.write(CONTENT, "large.bin")
    object_store.network.cut_after_bytes = 200_000
    with open_remote(place) as file:
        assert file.read() == CONTENT
        file.seek(-1000, os.SEEK_END)
        assert file.read(10) == CONTENT[-1000:-990]


def test_a_stream_of_a_changed_object_ends_in_an_error(object_store: ObjectStore) -> None:
    place = object_store.write(CONTENT, "large.bin")
    with open_remote(place) as file:
        assert file.read(1000) == CONTENT[:1000]
        object_store.write(CONTENT[::-1], "large.bin")
        with pytest.raises(InputError, match=f"{place} changed while it was read"):
            file.read()
