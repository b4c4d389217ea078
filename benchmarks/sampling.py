"""Sampling: the time of one choice among 32,000 tokens, relative to the time of a token of the 15 M model.

    python benchmarks/sampling.py [--rounds 20] [--json FILE]

A token is computed before each choice, as in real use. It has just written the logits, and has evicted the choice's
other data from the caches. A model with random weights gives nearly equal logits: top-p 0.9 keeps 27,000 tokens. A
temperature of a quarter of the logits' standard deviation makes it as certain as a language model: dozens are kept. The
settings alternate every ten tokens; medians count.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
from decode import load_shape, make_engine
from results import make_parser, write_result

from tinyllm.config import SamplingConfig

SETTINGS: dict[str, dict[str, Any]] = {
    "the likeliest": {"temperature": 0},
    "all tokens": {},
    "top-k 300": {"top_k": 300},
    "top-k 40, top-p 0.9": {"top_k": 40, "top_p": 0.9},
    "top-p 0.9": {"top_p": 0.9},
    "min-p 0.05": {"min_p": 0.05},
    "repetition penalty 1.2": {"repetition_penalty": 1.2},
}
TOKENS_PER_TURN = 10


def main() -> None:
    arguments = parse_arguments()
    engine = make_engine(load_shape("15m"), "fp32", 0)
    slots = engine.open(1)
    logits = engine.read(slots, np.ones((1, 8), np.int64))
    engine.close(slots)
    spread = float(logits.std())
    seen, uniforms = np.zeros(logits.shape, np.bool_), np.random.default_rng(0).random((1000, 1))
    sides = {
        f"{name}, {kind}": SamplingConfig(**{"temperature": temperature, **settings})
        for kind, temperature in {"as a language model": spread / 4, "all alike": 1.0}.items()
        for name, settings in SETTINGS.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    token_seconds = []
    for _ in range(arguments.rounds):
        for name, config in sides.items():
            slots = engine.open(1)
            logits = engine.read(slots, np.ones((1, 100), np.int64))
            for uniform in uniforms[:TOKENS_PER_TURN]:
                start = time.perf_counter()
                logits = engine.read(slots, np.ones((1, 1), np.int64))
                computed = time.perf_counter()
                engine.choose(logits, seen, uniform, config)
                seconds[name].append(time.perf_counter() - computed)
                token_seconds.append(computed - start)
            engine.close(slots)
    token = statistics.median(token_seconds)
    rows: list[dict[str, Any]] = [
        {
            "what": f"sampling, {name}: microseconds, of a token's",
            "ours": statistics.median(values) * 1e6,
            "peer": token * 1e6,
        }
        for name, values in seconds.items()
    ]
    for row in rows:
        print(f"{row['what']:80} {row['ours']:9.0f} {row['peer']:9.0f}   {row['ours'] / row['peer']:.1%}", flush=True)
    write_result(arguments.json, rows)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
