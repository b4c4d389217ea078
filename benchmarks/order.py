"""Start-up, memory and step of the order of training, from 10^6 to 10^12 tokens and from 1 to 10^5 shards.

    python benchmarks/order.py [--tokens 1e12] [--shards 100000] [--json FILE]

The first table simulates corpora by the sizes of their shards: no token is stored. It compares the Feistel network with
the permutation in memory of earlier versions, up to 10^10 tokens. A step takes 32 windows of 256 tokens.

The second table opens directories of real small shards in a temporary folder: manifest, sizes, stamps, tokenizer, and
one step of 32 windows from them. `full` also reads and hashes every file.

Each row has a process of its own. Times are those of the processor, because machines are shared. Memory is the peak of
what is resident, with the libraries.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from results import make_parser, write_result

from tinyllm.machine.system import peak_memory_bytes
from tinyllm.shards.batches import WindowOrder, read_windows, step_windows
from tinyllm.shards.details import Counts, ShardDetails, ShardEntry
from tinyllm.shards.format import ShardSet
from tinyllm.shards.order import FEISTEL, PHILOX
from tinyllm.storage.entries import STAMPS_NAME, FileEntry, stamps
from tinyllm.storage.manifest import MANIFEST_NAME, Manifest
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model

LENGTH, STEP_WINDOWS, NUM_STEPS = 256, 32, 100
SHARD_TOKENS = 2 * (LENGTH + 1)
PHILOX_TOKENS = 10**10
"""The most tokens with which the order in memory is run: 10^12 need 64 GB."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--tokens", type=float, default=1e12, help="The largest simulated corpus.")
    parser.add_argument("--shards", type=int, default=100_000, help="The largest number of real shards.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_ONE[json.loads(options.one)[0]](*json.loads(options.one)[1:])))
        return
    rows = [*_simulated_rows(int(options.tokens)), *_real_rows(options.shards)]
    write_result(options.json, rows)


def _simulated_rows(most_tokens: int) -> list[dict[str, Any]]:
    print(f"{'tokens':>18} {'shards':>8} {'order':18} {'start-up, ms':>13} {'memory, MB':>11} {'step, us':>9}")
    rows = []
    for tokens in (10**power for power in (6, 8, 10, 12)):
        for num_shards in (1, 100_000):
            for order in (FEISTEL, PHILOX):
                if (
                    tokens > most_tokens
                    or tokens < num_shards * LENGTH
                    or (order, tokens > PHILOX_TOKENS) == (PHILOX, True)
                ):
                    continue
                row = {"tokens": tokens, "shards": num_shards, "order": order}
                row |= run_alone("simulate", tokens, num_shards, order)
                print(f"{tokens:18,} {num_shards:8,} {order:18}", as_columns(row), flush=True)
                rows.append(row)
    return rows


def _real_rows(most_shards: int) -> list[dict[str, Any]]:
    print(f"\n{'shards':>18} {'':8} {'check':18} {'start-up, ms':>13} {'memory, MB':>11} {'step, us':>9}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for num_shards in (1, 1_000, 10_000, 100_000):
            if num_shards > most_shards:
                continue
            path = Path(folder) / str(num_shards)
            run_alone("make", str(path), num_shards)  # the peak of a parent would count as that of its children
            for check in ("changed", "full"):
                row = {"shards": num_shards, "check": check} | run_alone("open", str(path), check)
                print(f"{num_shards:18,} {'':8} {check:18}", as_columns(row), flush=True)
                rows.append(row)
    return rows


def as_columns(row: dict[str, Any]) -> str:
    """The three measured numbers of a row."""
    return f"{row['start_seconds'] * 1e3:13,.1f} {row['memory_bytes'] / 1e6:11,.1f} {row['step_seconds'] * 1e6:9,.0f}"


def run_alone(name: str, *arguments: Any) -> dict[str, Any]:
    """The result of one measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps([name, *arguments])]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def simulate(tokens: int, num_shards: int, order: str) -> dict[str, float]:
    """Builds the order of a corpus that has sizes alone, and takes steps."""
    lengths = np.full(num_shards, tokens // num_shards, dtype=np.int64)

    def start() -> Callable[[int], object]:
        windows = WindowOrder(lengths, LENGTH, permutation=order)
        return lambda step: windows.locate(step_windows(windows, step, STEP_WINDOWS, 1)[0])

    return measure(start)


def open_shards(path: str, check: Any) -> dict[str, float]:
    """Opens a directory of shards, and reads the windows of steps."""

    def start() -> Callable[[int], object]:
        shards = ShardSet.open(path, verify=check)
        windows = WindowOrder(shards.train.lengths, LENGTH)
        return lambda step: read_windows(shards.train, windows, step_windows(windows, step, STEP_WINDOWS, 1)[0])

    return measure(start)


def measure(start: Callable[[], Callable[[int], object]]) -> dict[str, float]:
    """Processor seconds until the first step is done, the peak of memory, and the median of further steps."""
    begin = time.process_time()
    take_step = start()
    take_step(0)
    start_seconds, seconds = time.process_time() - begin, []
    for step in range(1, NUM_STEPS + 1):
        begin = time.process_time()
        take_step(step)
        seconds.append(time.process_time() - begin)
    return {
        "start_seconds": start_seconds,
        "memory_bytes": peak_memory_bytes() or 0,
        "step_seconds": statistics.median(seconds),
    }


def make_shards(folder: str, num_shards: int) -> dict[str, float]:
    """Writes a directory of small shards as `prepare` would, without its calls to make files durable."""
    tokenizer = Tokenizer.from_bytes(train_model(["the cat sat on the mat"] * 9, 280), "benchmark.model")
    path = Path(folder)
    path.mkdir()
    ids = np.full(SHARD_TOKENS, 5, dtype="<u2")
    ids[0] = tokenizer.bos_id
    contents = {".bin": ids.tobytes(), ".idx": np.array([SHARD_TOKENS], dtype="<u8").tobytes()}
    names = [f"train-{number:05d}" for number in range(num_shards)] + ["validation-00000"]
    entries: dict[str, FileEntry] = {}
    for name in names:
        for ending, content in contents.items():
            (path / f"{name}{ending}").write_bytes(content)
    for name, content in tokenizer.files.items():
        (path / name).write_bytes(content)
    digests = {ending: hashlib.sha256(content).hexdigest() for ending, content in contents.items()}
    for file in sorted(path.iterdir()):
        digest = digests.get(file.suffix) or hashlib.sha256(file.read_bytes()).hexdigest()
        entries[file.name] = FileEntry(bytes=file.stat().st_size, sha256=digest)
    counts = Counts(documents=1, tokens=SHARD_TOKENS, text_bytes=SHARD_TOKENS)
    details = ShardDetails(
        format_version=2,
        vocab_size=tokenizer.vocab_size,
        dtype="uint16",
        tokenizer_fingerprint=tokenizer.fingerprint,
        source_fingerprint="simulated",
        recipe_fingerprint="simulated",
        split_rule="hash",
        validation_fraction=0.01,
        append_eos=False,
        shards=[
            ShardEntry(name=name, split="validation" if name.startswith("v") else "train", counts=counts)
            for name in names
        ],
    )
    manifest = Manifest(kind="shards", tinyllm_version="benchmark", files=entries, details=details.model_dump())
    (path / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    time.sleep(0.1)  # a file that changed a moment ago gets no stamp
    (path / STAMPS_NAME).write_text(json.dumps(stamps(path, entries)))
    return {}


_ONE: dict[str, Callable[..., dict[str, float]]] = {"simulate": simulate, "open": open_shards, "make": make_shards}


if __name__ == "__main__":
    main()
