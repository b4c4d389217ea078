"""Folders for the studio's tests: runs whose logs are written here, beside real shards, tokenizers and models."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOKENS_PER_STEP = 64
CONFIG = """
[model]
vocab_size = 320
hidden_size = 16
num_layers = 2
num_heads = 2

[training]
batch_size = 2
accumulation_steps = 2
sequence_length = 16
eval_interval = {eval_interval}

[schedule]
num_steps = {num_steps}
"""


def update(step: int, loss: float | None = None, **fields: Any) -> dict[str, Any]:
    """A line of an update, with losses that go up and down."""
    found = 8 / (1 + step / 100) + math.sin(step * 1.7) if loss is None else loss
    return {"step": step, "loss": found, "learning_rate": 1e-3, "grad_norm": 1.5, "tokens_per_second": 128.0} | fields


def evaluation(step: int) -> dict[str, Any]:
    """A line of an evaluation."""
    return {"step": step, "validation_loss": 8 / (1 + step / 100), "bits_per_byte": 2.0}


def lines_of_run(num_steps: int, eval_interval: int = 10) -> list[dict[str, Any]]:
    """The lines of a whole run."""
    lines = [evaluation(0)]
    for step in range(1, num_steps + 1):
        lines.append(update(step))
        if step % eval_interval == 0:
            lines.append(evaluation(step))
    return lines


def write_lines(path: Path, lines: Sequence[dict[str, Any]], mode: str = "w") -> None:
    """Writes or appends lines of JSON."""
    with path.open(mode, encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def write_run(run: Path, num_steps: int = 50, planned: int = 100, eval_interval: int = 10) -> Path:
    """Writes a run that has done `num_steps` of `planned` updates, with a sample at each evaluation."""
    run.mkdir(parents=True)
    (run / "config.toml").write_text(CONFIG.format(num_steps=planned, eval_interval=eval_interval))
    (run / ".lock").write_text("tinyllm\n")
    write_lines(run / "metrics.jsonl", lines_of_run(num_steps, eval_interval))
    samples = [sample(step) for step in range(eval_interval, num_steps + 1, eval_interval)]
    write_lines(run / "samples.jsonl", samples)
    return run


def sample(step: int) -> dict[str, Any]:
    """A line of a sample."""
    return {"step": step, "prompt": "Once upon a time", "text": f" there was number {step}."}


def write_folder(folder: Path, shards: Path, model: Path) -> Path:
    """A folder with the run `runs/first`, whose model is there, and the shards `shards`."""
    write_run(folder / "runs" / "first")
    shutil.copytree(model, folder / "runs" / "first" / "model")
    shutil.copytree(shards, folder / "shards")
    return folder
