"""`tinyllm prepare --executor`: the bytes of one process, duplicates removed, and errors in one line."""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from outputs import contents
from tinyllm.shards.arrays import ShardArrays
from tinyllm.shards.format import ShardSet

Call = Callable[..., tuple[int, str, str]]
READ = ["--documents", "line", "--validation-fraction", "0.05", "--shard-tokens", "20000"]


@pytest.fixture
def call(call_tinyllm: Call, tmp_path: Path) -> Call:
    """Runs one command in a folder with a corpus of 1,500 lines, 30 of them copies and 30 nearly copies of others."""
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghij", k=4)) for _ in range(500)]
    lines = [" ".join(draw.choices(words, k=draw.randint(40, 90))) for _ in range(1440)]
    lines += [*lines[:30], *(f"{line} more" for line in lines[100:130])]
    draw.shuffle(lines)
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        text = "\n".join(lines[number * 500 : number * 500 + 500])
        (tmp_path / "corpus" / f"{number}.txt").write_text(text, encoding="utf-8")
    assert call_tinyllm("tokenizer", "train", "corpus", "--vocab-size", "300", "-o", "tokenizer")[0] == 0
    return call_tinyllm


def prepare(call: Call, output: str, *flags: str) -> tuple[int, str, str]:
    return call("prepare", "corpus", "--tokenizer", "tokenizer", *READ, "-o", output, *flags)


def test_without_the_extra_one_line_names_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("tinyllm.cluster.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "datatrove", None)
    code, out, err = prepare(call, "shards", "--executor", "local", "--num-tasks", "2")
    assert (code, out) == (2, "")
    assert err == "tinyllm: --executor needs datatrove: pip install 'tinyllm[cluster]'\n"
    assert not list(Path().glob("shards*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--executor", "local"], "--executor needs --num-tasks"),
        (["--executor", "local", "--num-tasks", "2", "--merge"], "give one of them"),
        (["--dedup", "near", "--task", "0", "--num-tasks", "2"], "--dedup needs --executor"),
        (["--dry-run"], "need --executor slurm"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags: list[str], message: str, call_tinyllm: Call) -> None:
    code, _, err = call_tinyllm("prepare", "corpus", "--tokenizer", "tokenizer", "-o", "shards", *flags)
    assert (code, message in err) == (2, True), err


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_an_executor_gives_the_bytes_of_one_process(executor: str, call: Call) -> None:
    pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")
    assert prepare(call, "whole")[0] == 0
    code, out, err = prepare(call, "joint", "--executor", executor, "--num-tasks", "3", "--workers", "2")
    assert (code, out) == (0, ""), err
    assert contents(Path("joint")) == contents(Path("whole"))
    assert not Path("joint.parts").exists()
    code, _, err = prepare(call, "joint", "--executor", executor, "--num-tasks", "3")
    assert (code, "is up to date" in err) == (0, True), err
    assert not Path("joint.parts").exists()
    code, _, err = prepare(call, "joint", "--executor", executor, "--num-tasks", "3", "--append-eos")
    assert (code, "joint exists already" in err) == (1, True), err


@pytest.mark.slow
@pytest.mark.parametrize(("dedup", "num_left"), [("exact", 1470), ("near", 1440)])
def test_duplicates_are_removed_and_the_ids_are_those_of_prepare(dedup: str, num_left: int, call: Call) -> None:
    """Each document that is left is prepared alone, in a file of its own order, and gives the same ids."""
    pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")
    code, _, err = prepare(call, "joint", "--executor", "local", "--num-tasks", "3", "--workers", "1", "--dedup", dedup)
    assert code == 0, err
    shards = ShardSet.open("joint")
    assert shards.train_counts.documents + shards.validation_counts.documents == num_left
    documents = [*ids_of(shards.train, shards), *ids_of(shards.validation, shards)]
    texts = sorted(shards.tokenizer.decode(ids) for ids in documents)
    assert len(set(texts)) == num_left
    found = [line for path in sorted(Path("corpus").iterdir()) for line in path.read_text().splitlines()]
    assert set(texts) <= set(found)
    Path("left.txt").write_text("\n".join(texts), encoding="utf-8")
    assert call("prepare", "left.txt", "--tokenizer", "tokenizer", *READ, "-o", "alone")[0] == 0
    alone = ShardSet.open("alone")
    for one, other in ((shards.train, alone.train), (shards.validation, alone.validation)):
        assert sorted(ids_of(one, shards)) == sorted(ids_of(other, alone))


def ids_of(split: ShardArrays, shards: ShardSet) -> list[list[int]]:
    """The ids of each document."""
    bos_id = shards.tokenizer.bos_id
    return [ids.tolist() for array in split for ids in np.split(array, np.flatnonzero(array == bos_id)[1:])]


@pytest.mark.slow
def test_the_scripts_of_slurm_are_shown(call: Call) -> None:
    pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")
    flags = ["--executor", "slurm", "--num-tasks", "4", "--slurm-partition", "cpu", "--dedup", "near", "--dry-run"]
    code, out, err = prepare(call, "joint", *flags)
    assert code == 0, err
    assert out.count("#!/bin/bash") == 5, "signatures, buckets, clusters, parts, merge"
    assert "#SBATCH --partition=cpu" in out
    assert "#SBATCH --array=0-3%4" in out
    assert not Path("joint").exists()
    code, _, err = prepare(call, "joint", *flags[:-1])
    assert (code, "no sbatch" in err) == (1, True)
    code, _, err = prepare(call, "joint", *flags[:4])
    assert (code, "--slurm-partition is missing" in err) == (2, True)
