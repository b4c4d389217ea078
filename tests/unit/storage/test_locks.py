"""Locks: a second holder is refused, a dead one frees the lock, foreign files are not written."""

import multiprocessing
import os
import time
from contextlib import AbstractContextManager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tinyllm import storage
from tinyllm.errors import ArtifactError


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


@pytest.mark.parametrize("content", [b"somebody's notes\n", b"tinyllm\nand more"])
def test_a_foreign_lock_file_is_refused_and_not_written(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    with pytest.raises(ArtifactError, match="is not a lock of tinyllm"), storage.exclusive(tmp_path):
        pass
    assert (tmp_path / ".lock").read_bytes() == content


def test_an_empty_lock_of_an_earlier_version_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with storage.exclusive(tmp_path), pytest.raises(ArtifactError, match="in use by another run"):
        storage.check_free(tmp_path)
    assert (tmp_path / ".lock").read_bytes() == b""


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="Windows opens what a link points to")
def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(ArtifactError, match="cannot write"), storage.exclusive(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_free_lock_is_held_at_once_and_a_held_one_is_waited_for(tmp_path: Path) -> None:
    told: list[str] = []

    def wait(limit_seconds: float) -> AbstractContextManager[bool]:
        return storage.wait_for_lock(
            tmp_path / "lock", lambda: told.append("waiting"), patience_seconds=0.0, limit_seconds=limit_seconds
        )

    with wait(60) as first, wait(0.2) as second:
        assert (first, second, told) == (True, False, ["waiting"])
    with wait(60) as third:
        assert third
    assert (tmp_path / "lock").read_bytes() == b"tinyllm\n"


def test_a_killed_holder_ends_the_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, held))
    process.start()
    assert held.wait(60)
    lock = tmp_path / storage.LOCK_NAME
    with storage.wait_for_lock(lock, process.kill, patience_seconds=0.1, limit_seconds=60) as held_here:
        assert held_here
    process.join()
