"""The server over loopback HTTP: its throughput beside the engine's own, and the waiting times of clients under load.

    python benchmarks/serving.py [--shape 15m] [--texts 64] [--tokens 128] [--seconds 20] [--peer URL ...] [--json FILE]

First, `--texts` streams start together; the rate of all their tokens is compared with `Generator.generate` of as many
texts in this process. The sides alternate, and medians count. Then requests arrive at random times (open loop) at 25,
50 and 75 % of that rate. Prompts are beginnings of stories, of 4 to 80 words; answers have 16 to `--tokens` tokens. The
trace of arrivals and lengths is written to build/serving_trace.jsonl. Each peer is the address of a running server with
OpenAI's interface, such as `python -m llama_cpp.server`. It gets the same streams, and the requests of those loads that
its own rate can carry. Random weights cost the same as
trained ones. The clients share the processors with the server.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from decode import load_shape, make_engine
from results import make_parser, medians_in_turns, write_result

from tinyllm.config import SamplingConfig
from tinyllm.corpus.storybook import write_stories
from tinyllm.exchange.gguf import write_gguf
from tinyllm.exchange.gguf_blocks import TensorType
from tinyllm.generation.generator import Generator

TRACE = Path("build/serving_trace.jsonl")
LOADS = (0.25, 0.5, 0.75)
FEWEST_WORDS, MOST_WORDS, FEWEST_TOKENS = 4, 80, 16


@dataclass(frozen=True)
class Arrival:
    """One request of a trace."""

    seconds: float
    """Time from the start of the trace."""
    prompt: str
    num_tokens: int


@dataclass(frozen=True)
class Waits:
    """The times of one stream, in seconds."""

    first: float
    """From the request to the first event."""
    gaps: tuple[float, ...]
    """Between two events."""
    num_tokens: int


def main() -> None:
    arguments = parse_arguments()
    model = load_shape(arguments.shape)
    assert model.tokenizer is not None
    generator = Generator(make_engine(model, "fp32", 2), model.tokenizer, model.config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{arguments.shape}.gguf"
        with path.open("wb") as file:
            write_gguf(file, model, TensorType.F32, arguments.shape)
        with own_server(path) as url:
            rates = measure_rates(generator, url, arguments)
            rows = describe_rates(rates, f"{arguments.shape} fp32, {arguments.texts} streams")
            for load in LOADS:
                capacity = load * rates["tinyllm serve"]
                trace = make_trace(
                    capacity / ((FEWEST_TOKENS + arguments.tokens) / 2), arguments.seconds, arguments.tokens
                )
                rows.append(measure_waits("tinyllm serve", url, load, trace))
                for peer in arguments.peer:
                    if rates[peer] > capacity:
                        rows.append(measure_waits(peer, peer, load, trace))
                    else:
                        print(f"{peer} makes {rates[peer]:,.0f} tok/s, less than the {capacity:,.0f} of this load")
    write_result(arguments.json, rows)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--shape", default="15m")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="Length of each trace.")
    parser.add_argument("--peer", action="append", default=[], help="Address of a running server, without /v1.")
    return parser.parse_args()


@contextmanager
def own_server(path: Path) -> Iterator[str]:
    """Runs `tinyllm serve` with the model of `path`; gives its address."""
    command = [sys.executable, "-m", "tinyllm", "serve", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("serving "))
            yield line.split(" at ")[1].split("/v1")[0]
        finally:
            process.terminate()


def measure_rates(generator: Generator, url: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of streams that start together at each server, and of `generate` with the same prompts."""
    prompts = make_prompts(arguments.texts, 24, 24)
    config = SamplingConfig(max_new_tokens=arguments.tokens, temperature=0.8)

    def serve(server: str) -> float:
        start = time.perf_counter()
        streams = [stream(server, prompt, arguments.tokens) for prompt in prompts]
        return sum(waits.num_tokens for waits in together(streams)) / (time.perf_counter() - start)

    def generate() -> float:
        start = time.perf_counter()
        found = generator.generate(prompts, sampling=config)
        return sum(len(text.token_ids) for text in found) / (time.perf_counter() - start)

    sides: dict[str, Callable[[], float]] = {"tinyllm serve": partial(serve, url), "generate()": generate}
    sides |= {peer: partial(serve, peer) for peer in arguments.peer}
    return medians_in_turns(sides, arguments.rounds)


def describe_rates(rates: dict[str, float], what: str) -> list[dict[str, Any]]:
    """Prints the server's rate beside that of each other side, and returns the rows of the result."""
    ours = rates["tinyllm serve"]
    for side, rate in rates.items():
        print(f"{what}: {side} {rate:,.0f} tok/s, tinyllm serve / {side} = {ours / rate:.2f}", flush=True)
    others = {side: rate for side, rate in rates.items() if side != "tinyllm serve"}
    return [
        {"what": f"server, {what}, tok/s, against {side}", "ours": ours, "peer": rate} for side, rate in others.items()
    ]


def make_prompts(count: int, fewest_words: int, most_words: int) -> list[str]:
    """Beginnings of stories."""
    random = np.random.default_rng(count)
    stories = write_stories(count, seed=count)
    return [" ".join(story.split()[: random.integers(fewest_words, most_words + 1)]) for story in stories]


def make_trace(requests_per_second: float, seconds: float, most_tokens: int) -> list[Arrival]:
    """Requests at the times of a Poisson process, also written to `TRACE`."""
    random = np.random.default_rng(round(1000 * requests_per_second))
    times = np.cumsum(random.exponential(1 / requests_per_second, max(1, int(2 * requests_per_second * seconds))))
    times = times[times < seconds]
    prompts = make_prompts(len(times), FEWEST_WORDS, MOST_WORDS)
    lengths = random.integers(FEWEST_TOKENS, most_tokens + 1, len(times))
    trace = [Arrival(*each) for each in zip(times.tolist(), prompts, lengths.tolist(), strict=True)]
    TRACE.parent.mkdir(exist_ok=True)
    with TRACE.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(arrival)) + "\n" for arrival in trace)
    return trace


def measure_waits(name: str, url: str, load: float, trace: Sequence[Arrival]) -> dict[str, Any]:
    """Percentiles of the time to the first event and between two events, in milliseconds."""

    async def arrive(arrival: Arrival) -> Waits:
        await asyncio.sleep(arrival.seconds)
        return await stream(url, arrival.prompt, arrival.num_tokens)

    waits = together([arrive(arrival) for arrival in trace])
    first = np.percentile([wait.first for wait in waits], [50, 95]) * 1e3
    gaps = np.percentile([gap for wait in waits for gap in wait.gaps], [50, 95]) * 1e3
    print(
        f"{name} at {load:.0%}: {len(trace)} requests; first token {first[0]:.0f} ms (p95 {first[1]:.0f}), "
        f"between tokens {gaps[0]:.1f} ms (p95 {gaps[1]:.1f})",
        flush=True,
    )
    names = ("first_p50_ms", "first_p95_ms", "gap_p50_ms", "gap_p95_ms")
    return {"server": name, "load": load} | dict(zip(names, [*first.tolist(), *gaps.tolist()], strict=True))


def together(streams: Sequence[Coroutine[Any, Any, Waits]]) -> list[Waits]:
    """Runs all `streams` at a time."""

    async def run() -> list[Waits]:
        return list(await asyncio.gather(*streams))

    return asyncio.run(run())


async def stream(url: str, prompt: str, num_tokens: int) -> Waits:
    """Streams one text by a plain socket, so that the client costs little. Raises AssertionError for an error."""
    address = urlsplit(url)
    body = json.dumps({"prompt": prompt, "max_tokens": num_tokens, "temperature": 0.8, "stream": True})
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    status = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in status.split(b"\r\n", 1)[0], status
    times: list[float] = []
    while chunk := await reader.read(1 << 16):
        if b"data: {" in chunk:
            times.append(time.perf_counter())
    writer.close()
    gaps = tuple(later - earlier for earlier, later in pairwise(times))
    return Waits(times[0] - start, gaps, num_tokens)


if __name__ == "__main__":
    main()
