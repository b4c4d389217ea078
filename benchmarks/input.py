"""The time of an update when storage is slow, with and without reading in advance.

    python benchmarks/input.py [--delays 0,2,10,40] [--turns 4] [--json FILE]

A small model trains by the loop of `tinyllm train` on 8 windows of 256 tokens an update. Each window waits for a delay
before it is read, as from a disk or a cache of object storage. Turns of 6 updates alternate, so that both sides meet
the same load of the machine:

    direct    an update reads its windows when it needs them
    ahead     the windows of the next update are read in a thread while the current one is computed

The result is the median of the seconds from one update to the next, without the first update of a turn.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from results import make_parser, write_result
from wide_tokenizer import wide_tokenizer

from tinyllm.config import Config
from tinyllm.shards.arrays import ShardArrays, TokenArray
from tinyllm.shards.encoding import Tokens
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.next_token import NextToken
from tinyllm.training.reporter import TrainingReporter

WINDOWS, LENGTH, VOCABULARY, TURN = 8, 256, 2048, 6
MODEL = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_layers": 3, "num_heads": 4, "num_kv_heads": 4}
SETTINGS = {
    "batch_size": WINDOWS,
    "accumulation_steps": 1,
    "sequence_length": LENGTH,
    "eval_batches": 1,
    "eval_interval": 1_000_000,
    "device": "cpu",
    "dtype": "float32",
    "attention": "fused",
    "compile": "off",
}


class Clock(TrainingReporter):
    """The time of each update."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, record: dict[str, Any]) -> None:  # noqa: ARG002 (the reporter's signature)
        """Records one update."""
        self.times.append(time.perf_counter())


class SlowArrays(ShardArrays):
    """Arrays on storage that takes `delay` seconds for each window."""

    def __init__(self, arrays: ShardArrays, delay: float) -> None:
        super().__init__(arrays.lengths, lambda number: TokenArray(arrays[number]))
        self.delay = delay

    def read(self, number: int, start: int, count: int) -> Tokens:
        """The ids, after the delay."""
        time.sleep(self.delay)
        return super().read(number, start, count)


def main() -> None:
    """Prints a row for each delay."""
    parser = make_parser(__doc__)
    parser.add_argument("--delays", default="0,2,10,40", help="Milliseconds that each window waits, with commas.")
    parser.add_argument("--turns", type=int, default=4, help="Turns of each side.")
    options = parser.parse_args()
    print(f"{'delay, ms':>10} {'of an update, ms':>17} {'direct, ms':>11} {'ahead, ms':>10} {'ratio':>6}")
    rows = []
    for delay in (float(each) / 1e3 for each in options.delays.split(",")):
        direct, ahead = measure(delay, options.turns)
        rows.append({"delay": delay, "direct": direct, "ahead": ahead})
        print(
            f"{delay * 1e3:10.1f} {delay * WINDOWS * 1e3:17.0f} {direct * 1e3:11.0f} {ahead * 1e3:10.0f} "
            f"{direct / ahead:6.2f}",
            flush=True,
        )
    write_result(options.json, rows)


def measure(delay: float, num_turns: int) -> tuple[float, float]:
    """The median seconds between updates that read directly, and between those that read ahead."""
    num_steps = 2 * num_turns * TURN
    config = Config.model_validate({"model": MODEL, "training": SETTINGS, "schedule": {"num_steps": num_steps}})
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("train.bin", "validation.bin"):
            random.integers(3, VOCABULARY, 400_000, dtype=np.uint16).tofile(Path(folder) / name)
        shards = ShardSet.open(folder, tokenizer=wide_tokenizer(VOCABULARY))
        clock, slow = Clock(), replace(shards, train=SlowArrays(shards.train, delay))
        trainer = build_trainer(config, slow, Path(folder) / "run", reporter=clock)
        objective = trainer.objective
        assert isinstance(objective, NextToken)
        updates = objective.updates
        take = updates.take
        updates.take = lambda step: take(step) if is_ahead(step) else updates.read(step)  # type: ignore[method-assign]
        trainer.train(resume=False, to_toml=lambda _: "")
    seconds: tuple[list[float], list[float]] = [], []
    for step in range(1, num_steps):
        if step % TURN:
            seconds[is_ahead(step)].append(clock.times[step] - clock.times[step - 1])
    return statistics.median(seconds[False]), statistics.median(seconds[True])


def is_ahead(step: int) -> bool:
    """Whether the turn of `step` reads in advance."""
    return step // TURN % 2 == 1


if __name__ == "__main__":
    main()
