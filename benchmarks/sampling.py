"""Sampling: what one choice among 32,000 tokens costs beside the token of the 15 M model that it is for.

    python benchmarks/sampling.py [--rounds 100] [--json FILE]

The logits are those of a language: the r-th likeliest token has a probability in proportion to r^-1.6, which leaves 27
tokens to top-p 0.9; "all alike" are logits of a model with random weights, of which top-p keeps 27,000. As in real use
a token is computed before each choice, and has driven what the choice needs out of the caches. Settings take turns;
medians count.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from decode import load_shape, make_engine
from results import make_parser, write_result

from tinyllm.config import SamplingConfig
from tinyllm.generation.sampling import choose

SETTINGS = {
    "top-k 300": {"top_k": 300},
    "top-k 40, top-p 0.9": {"top_k": 40, "top_p": 0.9},
    "top-p 0.9": {"top_k": 0, "top_p": 0.9},
    "min-p 0.05": {"top_k": 0, "min_p": 0.05},
    "all tokens": {"top_k": 0},
}
VOCAB_SIZE = 32_000


def main() -> None:
    arguments = parse_arguments()
    random = np.random.default_rng(0)
    logits = {
        "a language": (-1.6 * np.log(random.permutation(VOCAB_SIZE) + 1)).astype(np.float32)[None],
        "all alike": (0.3 * random.standard_normal((1, VOCAB_SIZE))).astype(np.float32),
    }
    sides = {
        f"{name}, {kind}": choosing(row, SamplingConfig(temperature=1.0, **settings))
        for kind, row in logits.items()
        for name, settings in SETTINGS.items()
    }
    engine = make_engine(load_shape("15m", Path()), "fp32", 0)
    engine.prefill(np.ones((1, 8), np.int64))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    token_seconds = []
    for _ in range(arguments.rounds):
        for name, choose_one in sides.items():
            if engine.length == engine.context_length:
                engine.prefill(np.ones((1, 8), np.int64))
            start = time.perf_counter()
            engine.decode(np.ones(1, np.int64))
            computed = time.perf_counter()
            choose_one()
            seconds[name].append(time.perf_counter() - computed)
            token_seconds.append(computed - start)
    token = statistics.median(token_seconds)
    rows = [
        {
            "what": f"sampling, {name}: microseconds, of a token's",
            "ours": statistics.median(values) * 1e6,
            "peer": token * 1e6,
        }
        for name, values in seconds.items()
    ]
    for row in rows:
        print(f"{row['what']:64} {row['ours']:9.0f} {row['peer']:9.0f}   {row['ours'] / row['peer']:.1%}", flush=True)
    write_result(arguments.json, rows)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    return parser.parse_args()


def choosing(logits: np.ndarray, config: SamplingConfig) -> Callable[[], object]:
    seen, uniform = np.zeros(logits.shape, np.bool_), np.array([0.5])
    return lambda: choose(logits, seen, uniform, config)


if __name__ == "__main__":
    main()
