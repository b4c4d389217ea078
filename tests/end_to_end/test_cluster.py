"""`tinyllm prepare --executor`: the bytes of one process, duplicates removed, and errors in one line."""

import os
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
    for name in ["datatrove", *(name for name in sys.modules if name.startswith("datatrove."))]:
        monkeypatch.setitem(sys.modules, name, None)
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
        (["--filter", "gopher-quality"], "--filter needs --executor"),
        (["--executor", "slurm", "--num-tasks", "2", "-"], "save it to a file"),
        (["--dry-run"], "need --executor slurm"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags: list[str], message: str, call_tinyllm: Call) -> None:
    code, _, err = call_tinyllm("prepare", "corpus", "--tokenizer", "tokenizer", "-o", "shards", *flags)
    assert (code, message in err) == (2, True), err


def test_filtered_shards_have_the_bytes_of_a_filtered_corpus(call: Call) -> None:
    pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")
    word = Path("corpus/0.txt").read_text(encoding="utf-8").split()[0]
    Path("left").mkdir()
    for path in Path("corpus").iterdir():
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if word not in line.split()]
        (Path("left") / path.name).write_text("\n".join(lines), encoding="utf-8")
    flags = "--executor", "local", "--num-tasks", "3", "--workers", "1", "--filter", f"regex=\\b{word}\\b"
    code, out, err = prepare(call, "joint", *flags)
    assert (code, out) == (0, ""), err
    assert call("prepare", "left", "--tokenizer", "tokenizer", *READ, "-o", "alone")[0] == 0
    joint, alone = contents(Path("joint")), contents(Path("alone"))
    assert 0 < ShardSet.open("joint").train_counts.documents < 1440
    assert {**joint, "manifest.json": b""} == {**alone, "manifest.json": b""}
    assert not Path("joint.parts").exists()
    code, _, err = prepare(call, "joint", *flags[:-1], "regex=another")
    assert (code, "joint exists already" in err) == (1, True), err
    code, _, err = prepare(call, "none", *flags[:-1], "regex=.")
    assert (code, "the filters left no document of 3 file(s)" in err) == (1, True), err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("beautiful", "--filter has 'beautiful'; known are c4-quality"),
        ("regex=(", "whose pattern is not valid"),
        ("language=en", "more packages: Please install `fasteners` and `fasttext`"),
    ],
)
def test_a_filter_that_cannot_be_made_is_refused_in_one_line(name: str, message: str, call: Call) -> None:
    pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")
    code, _, err = prepare(call, "joint", "--executor", "local", "--num-tasks", "3", "--filter", name)
    assert (code, message in err, err.count("\n")) == (2, True, 1), err
    assert not list(Path().glob("joint*"))


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


def test_the_scripts_of_slurm_are_shown_and_nothing_is_written(call: Call) -> None:
    pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")
    flags = ["--executor", "slurm", "--num-tasks", "4", "--slurm-partition", "cpu", "--dedup", "near", "--dry-run"]
    code, out, err = prepare(call, "joint", *flags)
    assert code == 0, err
    assert out.count("#!/bin/bash") == 5, "signatures, buckets, clusters, parts, merge"
    assert "#SBATCH --partition=cpu" in out
    assert "#SBATCH --array=0-3%4" in out
    code, _, err = prepare(call, "joint", *flags[:-1])
    assert (code, "no sbatch" in err) == (1, True)
    code, _, err = prepare(call, "joint", *flags[:4])
    assert (code, "--slurm-partition is missing" in err) == (2, True)
    assert not list(Path().glob("joint*"))


SBATCH = """#!/bin/bash
# Runs the tasks of an array job at once, one after the other, with the variables that Slurm sets.
script="${@: -1}"
for argument in "$@"; do case $argument in --export=ALL,*) export "${argument#--export=ALL,}";; esac; done
export SLURM_JOB_ID=1 SLURM_ARRAY_JOB_ID=1 SLURM_NODEID=0 SLURM_NODELIST=localhost
export SLURM_CPUS_PER_TASK=1 SLURM_MEM_PER_CPU=4096 SLURM_GPUS_ON_NODE=0
array=$(grep -oE '^#SBATCH --array=[0-9]+-[0-9]+' "$script" | grep -oE '[0-9]+-[0-9]+')
for task in $(seq ${array%-*} ${array#*-}); do
    SLURM_ARRAY_TASK_ID=$task bash "$script" >&2 || echo "task $task failed" >&2
done
echo 1
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo localhost
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Slurm's scripts need a POSIX shell")
def test_the_jobs_of_slurm_make_the_bytes_of_one_process(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The scripts run for real, by stand-ins for sbatch, srun and scontrol, in place of a cluster."""
    pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert prepare(call, "whole")[0] == 0
    flags = "--executor", "slurm", "--num-tasks", "2", "--slurm-partition", "cpu"
    code, out, err = prepare(call, "joint", *flags)
    assert (code, out, "launched 2 jobs of Slurm" in err) == (0, "", True), err
    assert contents(Path("joint")) == contents(Path("whole"))
    assert [path.name for path in Path("joint.parts").glob("*/*")], "the logs of the jobs"
    code, _, err = prepare(call, "joint", *flags)
    assert (code, "is up to date" in err) == (0, True), err
    assert not Path("joint.parts").exists()
