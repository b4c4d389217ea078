"""Sampling: what one choice among 32,000 tokens costs beside the token of the 15 M model that it is for.

    python benchmarks/sampling.py [--rounds 20] [--json FILE]

As in real use a token is computed before each choice, has just written the logits, and has driven what else a choice
needs out of the caches. A model with random weights finds all tokens alike: top-p 0.9 keeps 27,000. At a temperature of
a quarter of its logits' standard deviation it is as sure as a language model: some dozens are kept. Settings take turns
of ten tokens; medians count.
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
TOKENS_A_TURN = 10


def main() -> None:
    arguments = parse_arguments()
    engine = make_engine(load_shape("15m"), "fp32", 0)
    logits = engine.prefill(np.ones((1, 8), np.int64))
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
            logits = engine.prefill(np.ones((1, 100), np.int64))
            for uniform in uniforms[:TOKENS_A_TURN]:
                start = time.perf_counter()
                logits = engine.decode(np.ones(1, np.int64))
                computed = time.perf_counter()
                engine.choose(logits, seen, uniform, config)
                seconds[name].append(time.perf_counter() - computed)
                token_seconds.append(computed - start)
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
