"""Limits of this machine: the rates of matrix products and of reading memory.

    python benchmarks/limits.py [--rounds 7] [--json FILE]

Training is compared with the rate of products in the shapes of the `seed` recipe. Decoding is compared with the rate at
which two threads read more memory than any cache holds. Each thread sums four streams at once: one would be slower.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from results import make_parser, write_result

SHAPES = {"288 to 768": (2048, 288, 768), "288 to 4,096": (2048, 288, 4096), "1,024 to 1,024": (2048, 1024, 1024)}
READ_BYTES = 2**30


def main() -> None:
    arguments = parse_arguments()
    rows: list[dict[str, Any]] = []
    for dtype in (torch.float32, torch.bfloat16):
        for name, shape in SHAPES.items():
            seconds = median_seconds(product(shape, dtype), arguments.rounds)
            what = f"matrix products, {str(dtype).removeprefix('torch.')}, 2,048 rows, {name}, GFLOP/s"
            rows.append({"what": what, "rate": 2 * np.prod(shape) / seconds / 1e9})
    memory = np.ones((2, 4, READ_BYTES // 32), np.float32)
    for num_threads in (1, 2):
        seconds = median_seconds(partial(read_memory, memory[:num_threads]), arguments.rounds)
        rate = memory[:num_threads].nbytes / seconds / 1e9
        rows.append({"what": f"reading memory, {num_threads} threads, GB/s", "rate": rate})
    for row in rows:
        print(f"{row['what']:76} {row['rate']:9,.1f}", flush=True)
    write_result(arguments.json, rows)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def product(shape: tuple[int, int, int], dtype: torch.dtype) -> Callable[[], object]:
    num_rows, num_inputs, num_outputs = shape
    x, weight = torch.randn(num_rows, num_inputs, dtype=dtype), torch.randn(num_outputs, num_inputs, dtype=dtype)
    return lambda: torch.nn.functional.linear(x, weight)


def median_seconds(act: Callable[[], object], num_rounds: int) -> float:
    """Median seconds of one call after a warm-up call; short calls are repeated within a round."""
    start = time.perf_counter()
    act()
    repeats = max(1, int(0.05 / (time.perf_counter() - start)))
    seconds = []
    for _ in range(num_rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            act()
        seconds.append((time.perf_counter() - start) / repeats)
    return statistics.median(seconds)


@njit(parallel=True, fastmath=True)
def read_memory(memory):  # type: ignore[no-untyped-def]
    """The sum of `memory` (threads, 4, numbers); each thread reads one row."""
    totals = np.zeros(memory.shape[0], np.float32)
    for thread in prange(memory.shape[0]):
        a, b, c, d = memory[thread, 0], memory[thread, 1], memory[thread, 2], memory[thread, 3]
        total = np.float32(0)
        for i in range(len(a)):
            total += a[i] + b[i] + c[i] + d[i]
        totals[thread] = total
    return totals


if __name__ == "__main__":
    main()
