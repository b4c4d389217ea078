"""The scheduler of the server beside `Generator.generate`: the same texts, on the same engine, in tokens per second.

    python benchmarks/scheduler.py [--shape 15m] [--kind fp32] [--texts 64] [--tokens 128] [--json FILE]

`same` is one prompt of 32 tokens with a sample a text. `prompts` gives each text its own prompt of 32 tokens. The sides
alternate; medians count. HTTP is not part of it. Random weights cost the same as trained ones.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from decode import load_shape, make_engine
from results import make_parser, write_result

from tinyllm.config import SamplingConfig
from tinyllm.generation.generator import Generator
from tinyllm.serving.request import Step, TextRequest
from tinyllm.serving.scheduler import Scheduler

PROMPT_TOKENS = 32


def main() -> None:
    arguments = parse_arguments()
    model = load_shape(arguments.shape)
    assert model.tokenizer is not None
    generator = Generator(make_engine(model, arguments.kind, arguments.threads), model.tokenizer, model.config)
    rows = []
    for name, prompts in (
        ("same", [prompt_of(0, model.config.vocab_size)]),
        ("prompts", [prompt_of(seed, model.config.vocab_size) for seed in range(arguments.texts)]),
    ):
        ours, peer = measure(generator, prompts, arguments)
        label = f"{arguments.shape} {arguments.kind} x {arguments.texts}, {name}"
        print(
            f"{label:>28}  scheduler {ours:8,.0f}  generate() {peer:8,.0f} tok/s  ratio {ours / peer:.3f}", flush=True
        )
        rows.append({"what": f"scheduler, {label}, tok/s, against generate()", "ours": ours, "peer": peer})
    write_result(arguments.json, rows)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--shape", default="15m")
    parser.add_argument("--kind", default="fp32")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def prompt_of(seed: int, vocab_size: int) -> list[int]:
    return [1, *np.random.default_rng(seed).integers(3, vocab_size, PROMPT_TOKENS - 1).tolist()]


def measure(generator: Generator, prompts: list[list[int]], arguments: argparse.Namespace) -> tuple[float, float]:
    """Medians of tokens per second of the scheduler and of `generate`."""
    config = SamplingConfig(max_new_tokens=arguments.tokens, temperature=0.8)
    num_samples = arguments.texts // len(prompts)
    sides: dict[str, Callable[[], int]] = {
        "scheduler": lambda: schedule(generator, prompts, num_samples, config),
        "generate": lambda: generate(generator, prompts, num_samples, config),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(arguments.rounds + 1):
        for name, side in sides.items():
            time.sleep(0.05)  # until the other side's threads sleep
            start = time.perf_counter()
            num_tokens = side()
            if round_number:
                rates[name].append(num_tokens / (time.perf_counter() - start))
    return statistics.median(rates["scheduler"]), statistics.median(rates["generate"])


def generate(generator: Generator, prompts: list[list[int]], num_samples: int, config: SamplingConfig) -> int:
    found = generator.generate(prompts, num_samples=num_samples, sampling=config)
    return sum(len(generation.token_ids) for generation in found)


def schedule(generator: Generator, prompts: list[list[int]], num_samples: int, config: SamplingConfig) -> int:
    """Generates the same texts; returns the number of tokens."""
    num_texts = len(prompts) * num_samples
    scheduler = Scheduler(generator, max_slots=num_texts, max_queue=0)
    requests = [
        TextRequest(tuple(prompt), config, sample=sample) for prompt in prompts for sample in range(num_samples)
    ]
    counts = [0] * num_texts

    def deliver(index: int, step: Step | Exception) -> None:
        assert isinstance(step, Step), step
        counts[index] += len(step.tokens)

    scheduler.submit_group(requests, deliver)
    scheduler.start()
    assert scheduler.drain(seconds=3600)
    return sum(counts)


if __name__ == "__main__":
    main()
