"""Tests the documents' split, and bare files next to committed ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from tinyllm.course.batches import PretokDataset, Task
from tinyllm.course.shards import process_shard, split_files
from tinyllm.errors import ArtifactError, InputError, UsageError
from tinyllm.tokenizer.codec import Tokenizer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Tokenizer) -> Path:
    """A working folder with two bare shards of 40 and 100 ids, and a tokenizer."""
    monkeypatch.chdir(tmp_path)
    shards = tmp_path / "data" / "tok320"
    shards.mkdir(parents=True)
    np.arange(40, dtype="<u2").tofile(shards / "data00.bin")
    np.arange(100, 200, dtype="<u2").tofile(shards / "data01.bin")
    (tmp_path / "data" / "tok320.model").write_bytes(tiny_tokenizer.model_proto)
    return tmp_path


def windows(split: str, number: int, max_seq_len: int = 8) -> list[tuple[list[int], list[int]]]:
    dataset = iter(PretokDataset(split, max_seq_len, 320, "custom"))
    return [(x.tolist(), y.tolist()) for x, y in (next(dataset) for _ in range(number))]


def test_each_round_visits_each_window_of_the_split_once() -> None:
    for split, first, num_ids in (("train", 100, 100), ("test", 0, 40), ("val", 0, 40)):
        num_windows = num_ids // 8 - 1
        found = windows(split, num_windows)
        assert sorted(x[0] for x, _ in found) == [first + 8 * number for number in range(num_windows)]
        assert all(x[1:] == y[:-1] and y[-1] == x[-1] + 1 for x, y in found)
        assert windows(split, num_windows) == found
        assert sorted(windows(split, 2 * num_windows)) == sorted(found * 2)


def test_batches_have_the_documents_shape() -> None:
    batches = Task.iter_batches(
        batch_size=3, device="cpu", split="train", max_seq_len=8, vocab_size=320, vocab_source="custom"
    )
    x, y = next(batches)
    assert (x.shape, y.shape) == ((3, 8), (3, 8))


def test_errors_name_the_missing_file(folder: Path) -> None:
    with pytest.raises(InputError, match=r"data00\.bin has 40 tokens; at least 42 are needed"):
        windows("test", 1, max_seq_len=21)
    with pytest.raises(UsageError, match="vocab_source is 'mine'"):
        PretokDataset("train", 8, 320, "mine")
    with pytest.raises(InputError, match="has no .bin file; run python preprocess.py"):
        next(iter(PretokDataset("train", 8, 999, "custom")))
    (folder / "data/tok320/data01.bin").unlink()
    with pytest.raises(InputError, match="has only one .bin file, which is for testing, and none for train"):
        split_files(folder / "data/tok320", "train")


def test_a_manifest_decides_the_split(tiny_shards: Path) -> None:
    assert [path.name for path in split_files(tiny_shards, "train")] == ["train-00000.bin"]
    assert [path.name for path in split_files(tiny_shards, "val")] == ["validation-00000.bin"]


def test_process_shard_writes_next_to_the_file_or_into_the_folder(
    folder: Path, tiny_tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "data05.json").write_text(json.dumps([{"story": " Once upon "}, {"story": "a time"}]))
    ids = [id for text in ("Once upon", "a time") for id in tiny_tokenizer.encode(text, bos=True)]
    for vocab_size, target in ((320, "data/tok320/data05.bin"), (0, "data05.bin"), (77, "data/tok77/data05.bin")):
        process_shard((5, "data05.json"), vocab_size, "data/tok320.model")
        assert np.fromfile(folder / target, dtype="<u2").tolist() == ids
        assert capsys.readouterr().out == f"Saved {target}, average seqlen: {len(ids) / 2:.2f}\n"


def test_process_shard_does_not_change_finished_shards(folder: Path) -> None:
    (folder / "data05.json").write_text(json.dumps([{"story": "Once upon"}]))
    (folder / "data/tok320/manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"data05\.bin cannot be written into it; run python preprocess\.py"):
        process_shard((5, "data05.json"), 320, "data/tok320.model")
    assert not (folder / "data/tok320/data05.bin").exists()


def test_process_shard_names_a_missing_file() -> None:
    with pytest.raises(InputError, match=r"nowhere\.json does not exist"):
        process_shard((0, "nowhere.json"), 320, "data/tok320.model")
