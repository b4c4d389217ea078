"""A folder that a run may write into, while another run begins in it."""

from pathlib import Path

import pytest

from tinyllm import storage
from tinyllm.errors import UsageError
from tinyllm.storage.locks import LOCK_TEXT
from tinyllm.training.run_dir import check_run_directory


def test_a_run_that_begins_is_no_other_program_files(tmp_path: Path) -> None:
    with storage.exclusive(tmp_path):
        (tmp_path / ".lock").write_bytes(b"")
        check_run_directory(tmp_path)  # the lock is made, and its text is still to come
        (tmp_path / ".lock").write_bytes(LOCK_TEXT)
        (tmp_path / "config.toml").touch()
        check_run_directory(tmp_path)


def test_the_text_of_the_lock_is_read_after_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run writes the text of its lock and its first file between two steps of the check."""
    (tmp_path / ".lock").touch()
    before = Path.exists

    def exists(path: Path) -> bool:
        if path.name == "config.toml":
            (tmp_path / ".lock").write_bytes(LOCK_TEXT)
            path.touch()
        return before(path)

    monkeypatch.setattr(Path, "exists", exists)
    check_run_directory(tmp_path)


def test_an_empty_lock_does_not_hide_other_files(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "config.toml").write_text("mine")
    with pytest.raises(UsageError, match=r"config\.toml exists, and no run of tinyllm wrote it"):
        check_run_directory(tmp_path)
