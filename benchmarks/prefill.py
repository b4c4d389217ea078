"""Reading a prompt by tinyllm, llama.cpp and transformers on a CPU, with the same random weights.

    python benchmarks/prefill.py [--shapes 15m,42m,110m] [--kinds fp32] [--prompts 32,128,240,1000] [--json FILE]

Each side reads a prompt into an empty text and computes the logits after its last token. Every model has room for
1,024 tokens. llama.cpp reads through its C interface. transformers runs its forward pass with a new cache and the
logits of one position. Peers have as many threads as our engine.

The sides alternate, so that a noisy machine disturbs all of them. Each side's median counts; read the ratios. Kinds
beside fp32 are also compared with our own fp32. A peer that is not installed is left out with one line.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from decode import make_engine, make_model_parser, measure_models, open_llama_cpp, open_transformers
from results import medians_in_turns

from tinyllm.config import WeightsKind
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.generation.engines.cpu_engine import CpuEngine

CONTEXT_LENGTH = 1024
TOKENS_A_TURN = 512
"""A turn reads short prompts several times: up to this number of tokens."""
OURS = "tinyllm"
Read = Callable[[list[int]], None]
"""Reads a prompt into an empty text."""


def main() -> None:
    parser = make_model_parser(__doc__, shapes="15m,42m,110m", kinds="fp32", rounds=7)
    parser.add_argument("--prompts", default="32,128,240,1000")
    measure_models(measure, parser.parse_args(), context_length=CONTEXT_LENGTH)


def measure(
    shape: str, kind: WeightsKind, model: ForeignModel, folder: Path, arguments: argparse.Namespace
) -> list[dict[str, object]]:
    """Prints one line for each prompt and peer; returns the same numbers as records."""
    engine = make_engine(model, kind, arguments.threads)
    makers: dict[str, Callable[[], Read]] = {
        "llama.cpp": lambda: llama_cpp(model, kind, folder, engine.num_threads),
        "transformers": lambda: transformers(model, kind, engine.num_threads),
        "our fp32": lambda: tinyllm(make_engine(model, "fp32", arguments.threads)),
    }
    del makers["our fp32" if kind == "fp32" else "transformers"]
    sides = {OURS: tinyllm(engine)}
    for name, make in makers.items():
        try:
            sides[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    rows: list[dict[str, object]] = []
    for length in map(int, arguments.prompts.split(",")):
        prompt = np.random.default_rng(length).integers(3, model.config.vocab_size, length).tolist()
        turns = {name: partial(tokens_per_second, read, prompt) for name, read in sides.items()}
        medians = medians_in_turns(turns, arguments.rounds)
        ours = medians.pop(OURS)
        for peer, theirs in medians.items():
            what = f"prompt of {length}, {shape} {kind}, tok/s, against {peer}"
            print(f"{what:56} {ours:8,.0f} {theirs:8,.0f}  ratio {ours / theirs:.2f}", flush=True)
            rows.append({"what": what, "ours": ours, "peer": theirs, "num_threads": engine.num_threads})
    return rows


def tokens_per_second(read: Read, prompt: list[int]) -> float:
    repeats = max(1, TOKENS_A_TURN // len(prompt))
    start = time.perf_counter()
    for _ in range(repeats):
        read(prompt)
    return repeats * len(prompt) / (time.perf_counter() - start)


def tinyllm(engine: CpuEngine) -> Read:
    def read(prompt: list[int]) -> None:
        slots = engine.open(1)
        engine.read(slots, [np.array(prompt)])
        engine.close(slots)

    return read


def llama_cpp(model: ForeignModel, kind: WeightsKind, folder: Path, num_threads: int) -> Read:
    """llama.cpp through its C interface, on a file with weights of `kind`."""
    import llama_cpp as cpp

    llama = open_llama_cpp(model, kind, folder, num_threads)

    def read(prompt: list[int]) -> None:
        cpp.llama_memory_clear(cpp.llama_get_memory(llama.ctx), True)
        tokens = (cpp.llama_token * len(prompt))(*prompt)
        cpp.llama_decode(llama.ctx, cpp.llama_batch_get_one(tokens, len(prompt)))
        cpp.llama_get_logits_ith(llama.ctx, -1)

    return read


def transformers(model: ForeignModel, kind: WeightsKind, num_threads: int) -> Read:
    """transformers' forward pass with a new cache, as its `generate` begins."""
    import torch

    theirs = open_transformers(model, kind, num_threads)

    def read(prompt: list[int]) -> None:
        with torch.inference_mode():
            theirs(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)

    return read


if __name__ == "__main__":
    main()
