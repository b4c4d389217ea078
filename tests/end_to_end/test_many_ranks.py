"""One run on one, two and four processes: the same command, the same losses, the same checkpoints."""

import errno
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from faults import trials
from rank_processes import NEEDS_LOOPBACK, Ranks, torchrun, train_on
from tinyllm import storage
from tinyllm.doctor.diagnosis import diagnose
from tinyllm.storage import disk
from tinyllm.training import chunked_loss, memory
from training_runs import losses

pytestmark = NEEDS_LOOPBACK
STEPS = 12
SETTINGS = ["--steps", str(STEPS), "--schedule.peak", "2e-3", "--model.dropout", "0"]
VICTIM = """
import os, signal, sys
from tinyllm.cli.app import main
from tinyllm.training.loop import Trainer

if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    update = Trainer._update
    def die(self, stop):
        if self.state.step == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        update(self, stop)
    Trainer._update = die
main(sys.argv[1:])
"""
"""A program that is `tinyllm`, but whose rank 1 is killed in its ninth update unless torchrun has restarted it."""


def arguments(shards: Path, run: Path, *more: str) -> list[str]:
    return trials.train_arguments(shards, run, *SETTINGS, *more)


def validation_losses(run: Path) -> dict[int, float]:
    records = storage.read_json_lines(run / "metrics.jsonl")
    return {record["step"]: record["validation_loss"] for record in records if "validation_loss" in record}


def assert_equal_losses(run: Path, expected: Path) -> None:
    assert len(losses(run)) == STEPS
    assert losses(run) == pytest.approx(losses(expected), rel=1e-6)
    assert validation_losses(run) == pytest.approx(validation_losses(expected), rel=1e-6)


def keep_checkpoint(run: Path, step: int) -> None:
    """Removes the checkpoints after `step`, as if the run had been killed soon after it."""
    for path in (run / "checkpoints").iterdir():
        if path.name != f"step-{step:08d}":
            storage.remove_directory(path, "checkpoint")


@pytest.mark.parametrize(
    ("optimizer", "num_ranks"),
    [
        ("adamw", 2),
        pytest.param("muon", 2, marks=pytest.mark.slow),
        pytest.param("adamw", 3, marks=pytest.mark.slow),
        pytest.param("adamw", 4, marks=pytest.mark.slow),
        pytest.param("muon", 4, marks=pytest.mark.slow),
    ],
)
def test_losses_do_not_depend_on_the_number_of_ranks(
    optimizer: str, num_ranks: int, tiny_shards: Path, tmp_path: Path
) -> None:
    """Four windows an update: three ranks have one or two of them."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    for path, number in ((alone, 1), (run, num_ranks)):
        output = train_on(number, path, arguments(tiny_shards, path, "--optimizer.name", optimizer))
        assert output.count("parameters, ") == output.count("; model in ") == 1
    assert_equal_losses(run, alone)
    assert len(storage.read_json_lines(run / "metrics.jsonl")) == STEPS + 4


def test_a_run_of_two_ranks_goes_on_on_one_and_on_two(tiny_shards: Path, tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    keep = ("--training.keep_checkpoints", "9")
    train_on(2, both, arguments(tiny_shards, both, *keep))
    assert all(finding.is_whole for finding in diagnose(both))
    whole = {"losses": losses(both), "validation": validation_losses(both)}
    metrics = trials.metrics(both)
    keep_checkpoint(both, 6)
    alone.symlink_to(both)
    output = train_on(1, alone, arguments(tiny_shards, alone, *keep))
    assert "changed since the checkpoint: ranks 2, this run has 1; sums may round differently" in output
    assert losses(both) == pytest.approx(whole["losses"], rel=1e-6)
    assert validation_losses(both) == pytest.approx(whole["validation"], rel=1e-6)
    keep_checkpoint(both, 6)
    output = train_on(2, both, arguments(tiny_shards, both, *keep))
    assert "changed since the checkpoint" not in output
    assert trials.metrics(both) == metrics


FSDP = ("--training.parallel", "fsdp")


@pytest.mark.parametrize("num_ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_sharded_ranks_train_as_one_process_and_their_checkpoints_are_whole(
    num_ranks: int, tiny_shards: Path, tmp_path: Path
) -> None:
    """The checkpoint of step 6 goes on on one process, on whole models, and on slices; the latter bit for bit."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    keep = ("--training.keep_checkpoints", "9")
    train_on(1, alone, arguments(tiny_shards, alone, *FSDP))
    train_on(num_ranks, run, arguments(tiny_shards, run, *FSDP, *keep))
    assert_equal_losses(run, alone)
    for part in ("checkpoints/step-00000012/model", "checkpoints/step-00000012/optimizer", "model/model"):
        ours, theirs = (load_file(path / f"{part}.safetensors") for path in (run, alone))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5)
    assert all(finding.is_whole for finding in diagnose(run))
    metrics = trials.metrics(run)
    for number, parallel in ((1, "fsdp"), (num_ranks, "ddp"), (num_ranks, "fsdp")):
        keep_checkpoint(run, 6)
        train_on(number, run, arguments(tiny_shards, run, *keep, "--training.parallel", parallel))
        assert_equal_losses(run, alone)
    assert trials.metrics(run) == metrics


def train_on_a_full_disk(*words: str) -> None:
    """The command, whose disk is full in the middle of the second checkpoint: the file of weights."""
    write, files = disk.write_pieces, itertools.count()

    def write_less(path: Path, pieces: Iterable[bytes]) -> None:
        few = path.name == "model.safetensors" and next(files) == 1
        write(path, itertools.islice(pieces, 2) if few else pieces)
        if few:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.write_pieces = write_less
    trials.command(*words)


def test_a_full_disk_ends_sharded_ranks_with_one_line(tiny_shards: Path, tmp_path: Path) -> None:
    """The other rank waits for the tensors that the first one does not write."""
    run = tmp_path / "run"
    ranks = Ranks(2, tmp_path / "output", arguments(tiny_shards, run, *FSDP), train_on_a_full_disk)
    assert ranks.end() == [1, 1], ranks.text()
    assert re.findall("^tinyllm: .*No space left on device", ranks.text(), re.MULTILINE), ranks.text()
    assert ranks.text().count("tinyllm: ") == 1, ranks.text()
    assert trials.newest_step(run) == 3
    assert trials.damaged_checkpoints(run) == []


@pytest.mark.slow
def test_sharded_ranks_train_in_bfloat16_and_sample(tiny_shards: Path, tmp_path: Path) -> None:
    runs = [tmp_path / "whole", tmp_path / "slices"]
    more = ("--dtype", "bfloat16", "--sample.num_samples", "1", "--sample.max_new_tokens", "4")
    for run, parallel in zip(runs, ("ddp", "fsdp"), strict=True):
        train_on(2, run, arguments(tiny_shards, run, *more, "--training.parallel", parallel))
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=2e-3)
    assert len(storage.read_json_lines(runs[1] / "samples.jsonl")) == 3


def train_in_chunks(*words: str) -> None:
    """The command, with the head's loss in chunks of 4 tokens, as on a GPU with a large vocabulary."""
    chunked_loss.pays_off = lambda hidden, output_weight: True
    memory.chunk_tokens = lambda vocab_size: 4
    trials.command(*words)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_that_compute_the_loss_in_chunks_train_as_one_process_without(
    parallel: str, tiny_shards: Path, tmp_path: Path
) -> None:
    alone, run = tmp_path / "alone", tmp_path / "run"
    train_on(1, alone, arguments(tiny_shards, alone))
    words = arguments(tiny_shards, run, "--training.parallel", parallel)
    ranks = Ranks(2, tmp_path / "output", words, train_in_chunks)
    assert ranks.end() == [0, 0], ranks.text()
    assert losses(run) == pytest.approx(losses(alone), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_run_of_four_ranks_goes_on_on_fewer(num_ranks: int, tiny_shards: Path, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    keep = ("--training.keep_checkpoints", "9")
    for path in (run, whole):
        train_on(4, path, arguments(tiny_shards, path, *keep))
    assert trials.metrics(run) == trials.metrics(whole)
    keep_checkpoint(run, 6)
    train_on(num_ranks, run, arguments(tiny_shards, run, *keep))
    assert_equal_losses(run, whole)


def test_a_killed_rank_ends_all_with_one_line_and_torchrun_goes_on(tiny_shards: Path, tmp_path: Path) -> None:
    run, whole, program = tmp_path / "run", tmp_path / "whole", tmp_path / "victim.py"
    program.write_text(VICTIM)
    train_on(2, whole, arguments(tiny_shards, whole))
    command = [each for each in arguments(tiny_shards, run) if each not in ("--resume", "auto")]
    done = torchrun(["--nproc-per-node", "2", "--max-restarts", "1"], [str(program), *command])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tinyllm: ") == 1, done.stderr
    assert "tinyllm: rank 0 lost another rank of the run, which was killed or cut off: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "going on from " in done.stderr
    assert trials.metrics(run) == trials.metrics(whole)


@pytest.mark.slow
def test_torchrun_does_not_go_on_with_a_run_that_it_did_not_start(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_on(1, run, arguments(tiny_shards, run))
    before = trials.metrics(run)
    command = [each for each in arguments(tiny_shards, run) if each not in ("--resume", "auto")]
    done = torchrun(["--nproc-per-node", "2", "--max-restarts", "1"], ["-m", "tinyllm", *command])
    assert done.returncode == 1
    assert (
        re.findall("^tinyllm: .*$", done.stderr, re.MULTILINE)
        == [f"tinyllm: {run} already holds a run; go on with --resume auto, or choose another --out directory"] * 2
    )
    assert trials.metrics(run) == before


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (("--training.parallel", "none"), "training.parallel is none, and torchrun started 2 ranks"),
        ((*FSDP, "--optimizer.name", "muon"), "optimizer.name is muon, which needs whole matrices; training.parallel"),
        (("--training.batch_sizes", "3"), "unknown key training.batch_sizes; did you mean training.batch_size?"),
    ],
)
def test_an_error_of_all_ranks_is_one_line(
    more: tuple[str, ...], error: str, tiny_shards: Path, tmp_path: Path
) -> None:
    ranks = Ranks(2, tmp_path / "output", arguments(tiny_shards, tmp_path / "run", *more))
    assert ranks.end() == [2, 2]
    assert ranks.text().count(error) == ranks.text().count("tinyllm: ") == 1


def test_fit_on_several_ranks_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("Once upon a time there was a red ball. " * 50)
    ranks = Ranks(2, tmp_path / "output", ["fit", str(tmp_path / "story.txt"), "-o", str(tmp_path / "run")])
    assert ranks.end() == [2, 2]
    assert ranks.text().splitlines() == [
        "tinyllm: fit plans and trains on one process, and torchrun started 2; run it without torchrun, or prepare "
        "shards and start `tinyllm train` with torchrun"
    ]
    assert not (tmp_path / "run").exists()
