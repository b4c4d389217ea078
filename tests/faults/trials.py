"""Trials: commands in child processes that may be killed, forked from a server that has imported torch.

A trial is a function of a module here, run in a child whose output goes to a file. Forking the server for each
trial avoids two hundred imports for two hundred starts.
"""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tinyllm import storage
from tinyllm.cli.app import main
from tinyllm.training.checkpoint import list_checkpoints, newest_whole_checkpoint
from training_runs import losses

PATIENCE_SECONDS = 600

NUM_STEPS, INTERVAL = 20, 3
CONFIG = f"""
[model]
hidden_size = 16
num_layers = 2
num_heads = 2
num_kv_heads = 1
context_length = 16
dropout = 0.1
[training]
batch_size = 2
accumulation_steps = 2
sequence_length = 16
eval_interval = 4
eval_batches = 2
checkpoint_interval = {INTERVAL}
num_threads = 1
device = "cpu"
dtype = "float32"
attention = "fused"
compile = "off"
[schedule]
num_steps = {NUM_STEPS}
peak = 1e-2
warmup_steps = 2
[sample]
num_samples = 0
"""


class Trial:
    """A child process that calls `function(*arguments)` and writes its output to the file `output`."""

    def __init__(self, output: Path, function: Callable[..., object], *arguments: Any) -> None:
        self.output = output
        self.process: ForkServerProcess = _server().Process(target=_call, args=(output, function, arguments))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def end(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Waits for the end; returns the exit code, negative for a signal. Kills a trial that hangs, and fails."""
        self.process.join(seconds)
        hangs = self.process.is_alive()
        if hangs:
            self.process.kill()
            self.process.join()
        assert not hangs, f"no end within {seconds} s: {self.text()}"
        assert self.process.exitcode is not None
        return self.process.exitcode

    def text(self) -> str:
        """The output up to this moment."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.warm"])
    # At its start the server finds modules only by PYTHONPATH, and ignores those that it does not find.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    return context


def _call(output: Path, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    # The server has the streams of the test runner, which may be captured.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    function(*arguments)


def command(*arguments: str) -> None:
    """Runs a tinyllm command; its exit code becomes that of the process."""
    main(list(arguments))


def wrap(owner: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replaces a function of a module or class by `wrapper(function)`, for the rest of this process."""
    setattr(owner, name, wrapper(getattr(owner, name)))


def train_arguments(shards: Path, run: Path, *more: str) -> list[str]:
    """The arguments of `tinyllm train --resume auto` for the tiny model."""
    config = run.parent / "tiny.toml"
    if not config.exists():
        config.write_text(CONFIG)
    return ["train", "--data", str(shards), "--out", str(run), "--config", str(config), "--resume", "auto", *more]


def train_to_the_end(shards: Path, run: Path, *more: str) -> str:
    """Starts or resumes a run until it is done; returns its output."""
    trial = Trial(run.parent / f"{run.name}.end.txt", command, *train_arguments(shards, run, *more))
    code = trial.end()
    assert code == 0, trial.text()
    return trial.text()


def assert_same_run(run: Path, expected: Path, num_steps: int = NUM_STEPS) -> None:
    """Asserts that weights, optimizer and metrics equal those of the other run bit for bit, and no draft is left."""
    ours, theirs = (path / "checkpoints" / f"step-{num_steps:08d}" for path in (run, expected))
    storage.verify(ours, "checkpoint")
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert_same_tensors(ours / name, theirs / name)
    storage.verify(run / "model", "model")
    assert_same_tensors(run / "model" / "model.safetensors", expected / "model" / "model.safetensors")
    assert metrics(run) == metrics(expected)
    assert len(losses(run)) == num_steps
    assert leftovers(run) == []


def assert_same_tensors(ours: Path, theirs: Path) -> None:
    left, right = load_file(ours), load_file(theirs)
    assert left.keys() == right.keys()
    assert left
    for name in right:
        assert torch.equal(left[name], right[name]), f"{ours}: {name} differs"


MEASURED = ("tokens_per_second", "memory_bytes")


def metrics(run: Path) -> list[dict[str, Any]]:
    """Every line of the log without speed and memory, which differ between runs."""
    records = storage.read_json_lines(run / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in records]


def leftovers(run: Path) -> list[str]:
    """Temporary files of a run."""
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if ".draft" in path.name)


def newest_step(run: Path) -> int:
    """The step of the newest whole checkpoint; 0 without one."""
    path, _ = newest_whole_checkpoint(run / "checkpoints")
    return int(path.name.removeprefix("step-")) if path else 0


def last_logged_step(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return max(losses(run), default=0)
    return 0


def damaged_checkpoints(run: Path) -> list[Path]:
    """Committed checkpoints that do not verify."""
    _, complaints = newest_whole_checkpoint(run / "checkpoints")
    return [path for path in list_checkpoints(run / "checkpoints") if path in complaints]
