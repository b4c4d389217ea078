"""Addresses that are opened, paths, and addresses that are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.addresses import opened_address
from tinyllm.cli.app import main
from tinyllm.errors import UsageError


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("s3://bucket/a b/ü", "s3://bucket/a b/ü"),
        (Path("s3://bucket/model/"), "s3://bucket/model"),
        ("shards", None),
        ("/tmp/memory:/x", None),
        ("C:\\texts\\a.txt", None),
        ("C:/texts", None),
    ],
)
def test_addresses_and_paths(path: str | Path, place: str | None) -> None:
    assert opened_address(path) == place


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (
            "memory://x/run",
            r"memory://x/run is no address that tinyllm opens; addresses begin with s3://, gs://, hf://",
        ),
        (Path("az://container/run"), "az://container/run is no address that tinyllm opens; addresses begin with"),
        (Path("gcs://bucket/run"), "write gs://bucket/run"),
        ("S3://Bucket/Run", "write s3://Bucket/Run"),
        ("s3a://bucket/run", "write s3://bucket/run"),
        ("file:///tmp/run", "leave file:// out"),
        ("s3://", "s3:// is no address that tinyllm opens; it names nothing to open"),
        (Path("s3://"), "it names nothing to open"),
    ],
)
def test_addresses_that_are_not_opened_are_refused(path: str | Path, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        opened_address(path)


def test_a_folder_with_the_name_of_a_scheme_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes:").mkdir()
    assert opened_address("notes:/one") is None


def test_no_output_becomes_a_folder_with_the_name_of_a_scheme(
    tiny_shards: Path,
    make_model_dir: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run at `gcs://` would be lost with the disk of its machine."""
    model = make_model_dir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "a.txt").write_text("Once upon a time. " * 100)
    for command in (
        ["prepare", "a.txt", "--tokenizer", str(tiny_shards), "-o", "gcs://bucket/out"],
        ["train", "--data", str(tiny_shards), "--out", "gcs://bucket/out"],
        ["tokenizer", "train", "a.txt", "--vocab-size", "300", "-o", "gcs://bucket/out"],
        ["export", str(model), "--to", "llama2c", "-o", "gcs://bucket/out"],
        ["demo", "-o", "gcs://bucket/out"],
        ["fit", "a.txt", "-o", "gcs://bucket/out"],
        ["studio", "gcs://bucket/out"],
        ["generate", "gcs://bucket/out", "Once"],
    ):
        with pytest.raises(SystemExit) as end:
            main(command)
        assert end.value.code == 2
        assert capsys.readouterr().err.endswith(
            "tinyllm: gcs://bucket/out is no address that tinyllm opens; write gs://bucket/out\n"
        ), command
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["a.txt"]
