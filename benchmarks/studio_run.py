"""A run's files of any length, and the studio in a process of its own, for benchmarks of the page."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVAL_INTERVAL = 1_000
CONFIG = f"""
[model]
vocab_size = 2048

[training]
batch_size = 16
sequence_length = 256
eval_interval = {EVAL_INTERVAL}

[schedule]
num_steps = {{num_steps}}
"""


def write_run(run: Path, num_lines: int, num_samples: int, num_steps: int | None = None) -> int:
    """Writes the files of a run of `num_steps` updates, `num_lines` of them done; returns the bytes of its log."""
    run.mkdir()
    (run / "config.toml").write_text(CONFIG.format(num_steps=num_steps or num_lines))
    with (run / "metrics.jsonl").open("w") as file:
        for first in range(1, num_lines + 1, EVAL_INTERVAL):
            file.writelines(update_line(step) for step in range(first, first + EVAL_INTERVAL))
            file.write(evaluation_line(first + EVAL_INTERVAL - 1))
    with (run / "samples.jsonl").open("w") as file:
        file.writelines(sample_line((number + 1) * max(1, num_lines // num_samples)) for number in range(num_samples))
    return (run / "metrics.jsonl").stat().st_size


def update_line(step: int) -> str:
    """A line of `metrics.jsonl` for an update."""
    return (
        f'{{"step": {step}, "epoch": 0.1234, "loss": {2 + 1e6 / (step + 1e6):.6f}, "learning_rate": 0.00100, '
        f'"grad_norm": 1.2345678901234, "tokens_per_second": 64000.0, "memory_bytes": 400000000}}\n'
    )


def evaluation_line(step: int) -> str:
    """A line of `metrics.jsonl` for an evaluation."""
    return f'{{"step": {step}, "validation_loss": {2 + 1e6 / (step + 1e6)}, "bits_per_byte": 1.5}}\n'


def sample_line(step: int) -> str:
    """A line of `samples.jsonl`."""
    text = f" there was a fox at step {step}. " + "It saw a red ball and ran after it. " * 10
    return json.dumps({"step": step, "prompt": "Once upon a time", "text": text}) + "\n"


@contextmanager
def studio(folder: Path) -> Iterator[tuple[str, int]]:
    """The address of `tinyllm studio` for a folder, and the process id of its server."""
    command = [sys.executable, "-m", "tinyllm", "studio", str(folder), "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().rpartition(" at ")[2].split()[0], process.pid
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
