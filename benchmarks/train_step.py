"""Training throughput: the whole `tinyllm train` loop against three other ways to train the same model.

    python benchmarks/train_step.py [--shape seed|wide] [--rounds 5] [--steps 8] [--json FILE]

`seed` is the model of the recipe of that name with updates of 8 x 256 tokens. `wide` has 512 channels, a vocabulary of
32,000 and updates of 4 x 256 tokens: output projection, loss and optimizer take a larger share there.

The sides are:

    tinyllm train      the loop with data, clipping and logging
    its bare step      the same update on one fixed batch
    the eager step     float32, PyTorch's fused attention, no compilation
    transformers       LlamaForCausalLM, under bfloat16 autocast if the loop trains in bfloat16
    our float32 step   explicit attention, compiled

On a processor without units for bfloat16 every side computes in float32.

Each side has its own process. The sides take turns within the loop's run, so all meet the same load of the machine.
The result is the median of the rounds; compare ratios, not rates. Peak memory is that of a run of the loop alone.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from results import make_parser, write_result
from wide_tokenizer import wide_tokenizer

from tinyllm.config import Config
from tinyllm.kernels.train import library
from tinyllm.machine.system import keep_freed_memory
from tinyllm.machine.user_cache import cache_folder
from tinyllm.model.hugging_face_config import to_hugging_face
from tinyllm.model.transformer import Transformer
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.loop import Trainer
from tinyllm.training.path import choose_fast_path
from tinyllm.training.reporter import TrainingReporter
from tinyllm.training.step import build_updater

Step = Callable[[], None]
LENGTH = 256
"""Tokens that a window predicts."""


class Shape(NamedTuple):
    """The sizes of a model and of its updates."""

    batch_size: int
    model: dict[str, int]

    @property
    def num_tokens(self) -> int:
        """Tokens of one update."""
        return self.batch_size * LENGTH


SHAPES = {
    "seed": Shape(8, {"vocab_size": 4096, "hidden_size": 288, "num_layers": 8, "num_heads": 8, "num_kv_heads": 4}),
    "wide": Shape(4, {"vocab_size": 32_000, "hidden_size": 512, "num_layers": 8, "num_heads": 8, "num_kv_heads": 8}),
}


class Way(NamedTuple):
    """The model that is trained, and the settings of its training."""

    shape_name: str
    dtype: str
    attention: str

    @property
    def shape(self) -> Shape:
        """The sizes that belong to `shape_name`."""
        return SHAPES[self.shape_name]

    def config(self, schedule: dict[str, int] | None = None) -> Config:
        """The config of a run."""
        return make_config(self.shape, schedule, dtype=self.dtype, attention=self.attention)

    def as_options(self) -> list[str]:
        """The command line options that give this value to another process."""
        return ["--shape", self.shape_name, "--dtype", self.dtype, "--attention", self.attention]


def make_config(shape: Shape, schedule: dict[str, int] | None = None, **training: str) -> Config:
    """The config of a run on the CPU that evaluates at its ends only."""
    settings: dict[str, Any] = {
        "batch_size": shape.batch_size,
        "accumulation_steps": 1,
        "eval_batches": 1,
        "eval_interval": 1_000_000,
        "device": "cpu",
        "compile": "on",
    }
    return Config.model_validate({"model": shape.model, "training": settings | training, "schedule": schedule or {}})


class Side:
    """Another process that does updates on request."""

    def __init__(self, name: str, way: Way) -> None:
        command = [sys.executable, __file__, "--side", name, *way.as_options()]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin
        assert self.process.stdout
        self.requests, self.answers = self.process.stdin, self.process.stdout
        self.is_ready = self.answers.readline() == "ready\n"

    def seconds(self, num_steps: int) -> float:
        """Does `num_steps` updates; returns their seconds."""
        print(num_steps, file=self.requests, flush=True)
        return float(self.answers.readline())

    def end(self) -> None:
        """Ends the process."""
        self.requests.close()
        self.process.wait()


class Turns(TrainingReporter):
    """Lets every other side do `num_steps` updates after each `num_steps` updates of the loop."""

    def __init__(self, num_steps: int, way: Way, side_names: Iterable[str] = ()) -> None:
        self.num_steps = num_steps
        self.way = way
        self.side_names = side_names
        self.sides: dict[str, Side] = {}
        self.rates: dict[str, list[float]] = {}
        self.start = time.perf_counter()

    def step(self, record: dict[str, Any]) -> None:
        """At the end of the loop's turn, records its rate and times the others."""
        if record["step"] % self.num_steps:
            return
        self.add(LOOP, time.perf_counter() - self.start)
        for name, side in self.sides.items():
            time.sleep(0.05)  # the other process's threads spin for a while before they sleep
            self.add(name, side.seconds(self.num_steps))
        time.sleep(0.05)
        self.start = time.perf_counter()

    def add(self, name: str, seconds: float) -> None:
        """Records the tokens per second of one turn."""
        self.rates.setdefault(name, []).append(self.num_steps * self.way.shape.num_tokens / seconds)

    def note(self, message: str) -> None:
        """Prints `message`."""
        print(message, file=sys.stderr)

    def evaluation(self, record: dict[str, Any]) -> None:
        """Starts the other sides after the loop's first evaluation, when the loop is ready."""
        if record["step"] == 0:
            sides = {name: Side(name, self.way) for name in self.side_names}
            self.sides = {name: side for name, side in sides.items() if side.is_ready}
            self.start = time.perf_counter()

    def end(self) -> None:
        """Ends the processes of the other sides."""
        for side in self.sides.values():
            side.end()


def main() -> None:
    """Measures and prints the table, or serves as one of its sides."""
    arguments = parse_arguments()
    if arguments.dtype:
        way = Way(arguments.shape, arguments.dtype, arguments.attention)
    else:
        way = fastest_way(arguments.shape)
    if arguments.side:
        serve(SIDES[arguments.side](way))
        return
    if arguments.only_loop:
        trainer = make_trainer(arguments.only_loop, 5, Turns(1_000_000, way))
        print(trainer.train(resume=False, to_toml=lambda _: "").peak_memory_bytes)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), way.shape.model["vocab_size"])
        turns = Turns(arguments.steps, way, SIDES)
        trainer = make_trainer(Path(folder), arguments.steps * (arguments.rounds + 1), turns)
        trainer.train(resume=False, to_toml=lambda _: "")
        turns.end()
        memory = measure_memory(Path(folder), way)
    records = compare(turns.rates, way.shape_name)
    for record in records:
        ratio = record["ours"] / record["peer"]
        print(f"{record['what']:84} {record['ours']:9,.0f} {record['peer']:9,.0f}   {ratio:.2f} x", flush=True)
    print(f"peak memory of the loop: {memory / 1e6:,.0f} MB")
    write_result(arguments.json, {"rows": records, "rates": turns.rates, "peak_memory_bytes": memory})


def compare(rates: dict[str, list[float]], shape_name: str) -> list[dict[str, Any]]:
    """The rows of the table, from each side's rates; the first round is left out because it also allocates memory."""
    medians = {name: statistics.median(turns[1:]) for name, turns in rates.items()}
    pairs = [(LOOP, name) for name in (BARE, EAGER, TRANSFORMERS)] + [(OURS_FLOAT32, EAGER)]
    return [
        {"what": f"{shape_name}: {ours}, tok/s, against {peer}", "ours": medians[ours], "peer": medians[peer]}
        for ours, peer in pairs
        if peer in medians
    ]


def parse_arguments() -> argparse.Namespace:
    """The options; the hidden ones are for the benchmark's own processes."""
    parser = make_parser(__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="seed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="Updates of one turn.")
    parser.add_argument("--only-loop", type=Path, help=argparse.SUPPRESS)
    for hidden in ("--side", "--dtype", "--attention"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_shards(folder: Path, vocab_size: int) -> None:
    """Writes shards of random tokens: the speed does not depend on the text."""
    random = np.random.default_rng(0)
    for name in ("train.bin", "validation.bin"):
        random.integers(3, vocab_size, 400_000, dtype=np.uint16).tofile(folder / name)


def fastest_way(shape_name: str) -> Way:
    """The precision and attention that `tinyllm train` would choose for a long run."""
    if library.is_supported():
        return Way(shape_name, "bfloat16", "tiled")
    path = choose_fast_path(make_config(SHAPES[shape_name]), torch.device("cpu"), 1_000_000, note)
    note(path.reason)
    return Way(shape_name, path.dtype, path.attention)


def make_trainer(folder: Path, num_steps: int, turns: Turns) -> Trainer:
    """The loop of `tinyllm train`; compiled, which a long run would choose but a short one would not."""
    config = turns.way.config(schedule={"num_steps": num_steps, "warmup_steps": 10})
    shards = ShardSet.open(folder, tokenizer=wide_tokenizer(config.model.vocab_size))
    return build_trainer(config, shards, folder / f"run-{num_steps}", reporter=turns)


def serve(step: Step | None) -> None:
    """Does as many updates as each line of standard input requests, and answers with their seconds."""
    if step is None:
        return
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - start, flush=True)


def note(line: str) -> None:
    """Prints a line for the user."""
    print(line, file=sys.stderr)


def random_tokens(shape: Shape) -> torch.Tensor:
    """One batch (batch_size, LENGTH + 1) int64."""
    torch.manual_seed(0)
    return torch.randint(shape.model["vocab_size"], (shape.batch_size, LENGTH + 1))


def bare_step(way: Way) -> Step:
    """The update of the loop, on one fixed batch."""
    keep_freed_memory()
    if way.attention == "tiled" and (problem := library.load(cache_folder() / "kernels", note)):
        raise SystemExit(problem)
    config = way.config()
    updater = build_updater(Transformer(config.model).train(), config, torch.device("cpu"))
    tokens = random_tokens(way.shape)

    def step() -> None:
        updater.update([tokens], way.shape.num_tokens)

    return step


def eager_float32(way: Way) -> Step:
    """The plain step on our model."""
    model, tokens = Transformer(way.config().model).train(), random_tokens(way.shape)
    return plain_step(model, lambda: F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()))


def transformers(way: Way) -> Step | None:
    """The plain step on transformers' model; None if transformers is not installed."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        print(f"transformers is left out: {error}", file=sys.stderr)
        return None
    tokens = random_tokens(way.shape)
    model = LlamaForCausalLM(LlamaConfig(**to_hugging_face(way.config().model, "float32"))).train()

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=way.dtype == "bfloat16"):
            logits = model(tokens[:, :-1]).logits
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    return plain_step(model, loss)


def plain_step(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Step:
    """A textbook update: backward, clip, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


LOOP, BARE = "tinyllm train", "its bare step"
EAGER, TRANSFORMERS = "the eager float32 step, fused attention", "transformers, in the same precision"
OURS_FLOAT32 = "our float32 step"
SIDES: dict[str, Callable[[Way], Step | None]] = {
    BARE: bare_step,
    EAGER: eager_float32,
    TRANSFORMERS: transformers,
    OURS_FLOAT32: lambda way: bare_step(Way(way.shape_name, "float32", "explicit")),
}


def measure_memory(shards: Path, way: Way) -> int:
    """Peak resident bytes of a run of the loop alone, in its own process."""
    command = [sys.executable, __file__, "--only-loop", str(shards), *way.as_options()]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
