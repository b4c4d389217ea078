"""Tests opening shard directories: committed ones, llama2.c's bare files, and damaged ones."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinyllm.cli.flags import in_flags
from tinyllm.errors import ArtifactError, FormatError, InputError, MismatchError
from tinyllm.shards.encoding import dtype_for
from tinyllm.shards.format import ShardSet, count_tokens, read_document_ends, read_tokens
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model

Run = Callable[..., ShardSet]


def test_directory_opens_with_its_tokenizer(run: Run, tokenizer: Tokenizer) -> None:
    shards = ShardSet.open(run().path, verify="full")
    assert shards.tokenizer.fingerprint == tokenizer.fingerprint
    assert shards.details is not None
    assert (shards.details.vocab_size, shards.details.dtype) == (tokenizer.vocab_size, "uint16")
    assert all(array.dtype == np.uint16 and not array.flags.writeable for array in [*shards.train, *shards.validation])
    assert sum(map(len, shards.train)) == shards.train_counts.tokens


def test_counts_from_ids_equal_counts_from_text(run: Run, tokenizer: Tokenizer) -> None:
    """Bits per byte of bare files rely on this equality."""
    shards = run()
    assert count_tokens(shards.train, tokenizer) == shards.train_counts
    assert count_tokens(shards.validation, tokenizer) == shards.validation_counts


def test_another_tokenizer_is_refused(run: Run) -> None:
    other = Tokenizer.from_bytes(train_model(["other words"] * 9, 268), "other.model")
    with pytest.raises(MismatchError, match=r"made by another tokenizer than other\.model"):
        ShardSet.open(run().path, tokenizer=other)


def test_damage_is_found_and_named(run: Run) -> None:
    path = run().path
    shard = path / "train-00001.bin"
    shard.write_bytes(b"\xff" + shard.read_bytes()[1:])
    with pytest.raises(ArtifactError, match=r"train-00001\.bin is damaged: its SHA-256"):
        ShardSet.open(path, verify="full")
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(ArtifactError, match=r"train-00001\.bin is damaged: it has"):
        ShardSet.open(path)


def test_manifest_with_other_details_is_refused(run: Run) -> None:
    manifest = run().path / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["manifest_sha256"]
    content["details"]["dtype"] = "int8"
    manifest.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged at dtype"):
        ShardSet.open(manifest.parent)


def test_missing_directory_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; make shards with: `prepare"):
        ShardSet.open(tmp_path / "absent")
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        ShardSet.open(tmp_path)


def write_bare(folder: Path, **arrays: list[int]) -> Path:
    folder.mkdir()
    for name, ids in arrays.items():
        np.array(ids, dtype="<u2").tofile(folder / f"{name}.bin")
    return folder


def test_bare_files_are_split_as_in_llama2c(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat 😀", bos=True)
    folder = write_bare(tmp_path / "bare", data01=ids * 2, data00=ids, data02=ids * 3)
    shards = ShardSet.open(folder, tokenizer=tokenizer)
    assert [array.tolist() for array in shards.validation] == [ids]
    assert [len(array) for array in shards.train] == [2 * len(ids), 3 * len(ids)]
    assert (shards.validation_counts.documents, shards.validation_counts.text_bytes) == (1, len("the cat 😀".encode()))
    assert shards.train_counts.documents == 5
    assert shards.details is None


def test_single_bare_file_is_split_by_position(tmp_path: Path, tokenizer: Tokenizer) -> None:
    shards = ShardSet.open(write_bare(tmp_path / "bare", all=list(range(105))), tokenizer=tokenizer)
    assert (shards.train[0].tolist(), shards.validation[0].tolist()) == (list(range(95)), list(range(95, 105)))


def test_bare_files_need_a_tokenizer_that_fits(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = write_bare(tmp_path / "bare", a=[1, 5, 300, 9], b=[1])
    with pytest.raises(InputError, match="say which tokenizer"):
        ShardSet.open(folder)
    with pytest.raises(FormatError, match=r"a\.bin: token 2 has the id 300, out of range for the 300 tokens"):
        ShardSet.open(folder, tokenizer=tokenizer)


def test_odd_sizes_are_refused_as_damage(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = write_bare(tmp_path / "bare", a=[1, 5], b=[1])
    (folder / "b.bin").write_bytes(b"\1\0\5")
    with pytest.raises(FormatError, match=r"b\.bin has 3 bytes"):
        ShardSet.open(folder, tokenizer=tokenizer)


@pytest.mark.parametrize(
    "content", [b"", b"1234567", np.array([5, 3], "<u8").tobytes(), np.array([9], "<u8").tobytes()]
)
def test_impossible_indexes_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.idx is damaged"):
        read_document_ends(tmp_path / "x.idx", 10)


def test_uint32_is_used_above_65536_ids(tmp_path: Path) -> None:
    assert [dtype_for(size) for size in (512, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]
    np.array([1, 70_000], dtype="<u4").tofile(tmp_path / "x.bin")
    assert read_tokens(tmp_path / "x.bin", "uint32").tolist() == [1, 70_000]


@pytest.mark.parametrize("name", ["raw", "my texts", "story.txt"])
def test_text_in_place_of_shards_names_the_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(name) if name.endswith(".txt") else Path(name) / "deep" / "story.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a story", encoding="utf-8")
    text, shards = ("'my texts'", "'my texts-shards'") if " " in name else (name, f"{name.removesuffix('.txt')}-shards")
    command = f"tinyllm prepare {text} --tokenizer tokenizer -o {shards}"
    call = f"prepare({text}, tokenizer=tokenizer, output={shards})"
    with pytest.raises(InputError) as raised:
        ShardSet.open(name)
    assert f"{name} is text, not shards; run prepare first: `{call}` " in str(raised.value)
    assert f"{name} is text, not shards; run prepare first: {command} " in in_flags(raised.value)


@pytest.mark.parametrize("names", [[], ["config.toml", "metrics.jsonl"], ["config.json"], ["picture.png"]])
def test_other_folders_are_not_called_text(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        ShardSet.open(tmp_path)
