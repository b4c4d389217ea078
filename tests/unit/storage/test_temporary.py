"""Temporary files without a name: their content is mapped, and nothing stays in the folder."""

from pathlib import Path

import pytest

from tinyllm import storage
from tinyllm.errors import ArtifactError


def test_parts_are_mapped_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mapped = storage.map_temporary(bytes([number]) * 5000 for number in range(4))
    assert bytes(mapped) == b"".join(bytes([number]) * 5000 for number in range(4))
    assert storage.map_temporary([]) == b""
    del mapped
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(ArtifactError, match=r"cannot write a temporary file in .*absent: No such file.*set TMPDIR"):
        storage.map_temporary([b"x"])
